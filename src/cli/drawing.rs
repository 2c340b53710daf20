//! A graph drawn as plain SVG: layers from left to right by depth, long edges bent around boxes, colours by phase.
//!
//! Takes boxes and edges, gives text that depends on nothing else. The method is Sugiyama's in its simplest form: longest path for layers,
//! a dummy in each layer that an edge crosses, barycentres for the order, then a few passes that pull connected boxes level.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::project::source::graph::Phase;

/// One node to draw.
pub struct Box {
    pub id: usize,
    pub title: String,
    pub subtitle: String,
    pub phase: Phase,
    pub bold: bool,
}

/// One edge, between ids.
#[derive(Clone, Copy)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub dashed: bool,
}

/// Fill and line of a phase.
pub fn colours(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Sql => ("#e8eaf6", "#3949ab"),
        Phase::Data => ("#e3f2fd", "#1976d2"),
        Phase::Features => ("#e8f5e9", "#388e3c"),
        Phase::Train => ("#fff3e0", "#f57c00"),
        Phase::Serve => ("#fce4ec", "#c2185b"),
    }
}

const HEIGHT: f64 = 44.0;
const GAP: f64 = 22.0;
const BETWEEN: f64 = 70.0;
const MARGIN: f64 = 24.0;
const DUMMY: f64 = 8.0;

/// A box, or the point where a long edge crosses a layer.
struct Item {
    /// Index into the boxes; `None` for a dummy.
    shown: Option<usize>,
    layer: usize,
    y: f64,
    left: Vec<usize>,
    right: Vec<usize>,
}

impl Item {
    fn height(&self) -> f64 {
        if self.shown.is_some() { HEIGHT } else { DUMMY }
    }
}

/// Draws `boxes` and those edges whose ends are both among them.
pub fn svg(boxes: &[Box], edges: &[Edge]) -> String {
    let index: BTreeMap<usize, usize> = boxes
        .iter()
        .enumerate()
        .map(|(at, shown)| (shown.id, at))
        .collect();
    let edges: Vec<(usize, usize, bool)> = edges
        .iter()
        .filter_map(|edge| Some((*index.get(&edge.from)?, *index.get(&edge.to)?, edge.dashed)))
        .collect();
    let layers = longest_paths(boxes.len(), &edges);
    let (mut items, paths) = items(&layers, &edges);
    let mut columns = vec![Vec::new(); layers.iter().max().map_or(0, |layer| layer + 1)];
    for (at, item) in items.iter().enumerate() {
        columns[item.layer].push(at);
    }
    order(&mut columns, &items);
    place(&columns, &mut items);
    render(boxes, &items, &columns, &paths)
}

/// Each node's layer: the longest path to it. Edges of a cycle, which a checked project has none of, count once.
fn longest_paths(count: usize, edges: &[(usize, usize, bool)]) -> Vec<usize> {
    let mut layers = vec![0; count];
    for _ in 0..count {
        let mut changed = false;
        for (from, to, _) in edges {
            if layers[*to] <= layers[*from] && layers[*from] + 1 < count.max(1) {
                layers[*to] = layers[*from] + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    layers
}

/// Boxes first, then dummies; and for each edge the items that it passes through.
fn items(layers: &[usize], edges: &[(usize, usize, bool)]) -> (Vec<Item>, Vec<(Vec<usize>, bool)>) {
    let new = |shown, layer| Item {
        shown,
        layer,
        y: 0.0,
        left: Vec::new(),
        right: Vec::new(),
    };
    let mut items: Vec<Item> = layers
        .iter()
        .enumerate()
        .map(|(at, layer)| new(Some(at), *layer))
        .collect();
    let mut paths = Vec::new();
    for (from, to, dashed) in edges {
        let mut path = vec![*from];
        for layer in layers[*from] + 1..layers[*to] {
            path.push(items.len());
            items.push(new(None, layer));
        }
        path.push(*to);
        for pair in path.windows(2) {
            items[pair[0]].right.push(pair[1]);
            items[pair[1]].left.push(pair[0]);
        }
        paths.push((path, *dashed));
    }
    (items, paths)
}

/// Sorts each column by where its neighbours stand, forth and back a few times.
fn order(columns: &mut [Vec<usize>], items: &[Item]) {
    let mut rank = vec![0.0; items.len()];
    let number = |column: &[usize], rank: &mut [f64]| {
        for (at, item) in column.iter().enumerate() {
            rank[*item] = at as f64;
        }
    };
    for column in columns.iter() {
        number(column, &mut rank);
    }
    for sweep in 0..12 {
        let forth = sweep % 2 == 0;
        let span: Vec<usize> = if forth {
            (0..columns.len()).collect()
        } else {
            (0..columns.len()).rev().collect()
        };
        for at in span {
            let mut keyed: Vec<(f64, usize)> = columns[at]
                .iter()
                .map(|item| {
                    let near = if forth {
                        &items[*item].left
                    } else {
                        &items[*item].right
                    };
                    let mean = near.iter().map(|other| rank[*other]).sum::<f64>() / near.len() as f64;
                    (if near.is_empty() { rank[*item] } else { mean }, *item)
                })
                .collect();
            keyed.sort_by(|one, other| one.0.total_cmp(&other.0));
            columns[at] = keyed.into_iter().map(|(_, item)| item).collect();
            number(&columns[at], &mut rank);
        }
    }
}

/// Gives each item its height: pulled towards its neighbours, never closer to the next than the gap.
fn place(columns: &[Vec<usize>], items: &mut [Item]) {
    for column in columns {
        let mut y = 0.0;
        for item in column {
            items[*item].y = y + items[*item].height() / 2.0;
            y += items[*item].height() + GAP;
        }
    }
    for pass in 0..24 {
        let span: Vec<usize> = if pass % 2 == 0 {
            (0..columns.len()).collect()
        } else {
            (0..columns.len()).rev().collect()
        };
        for at in span {
            let column = &columns[at];
            let wanted: Vec<f64> = column
                .iter()
                .map(|item| {
                    let near: Vec<f64> = items[*item]
                        .left
                        .iter()
                        .chain(&items[*item].right)
                        .map(|other| items[*other].y)
                        .collect();
                    if near.is_empty() {
                        items[*item].y
                    } else {
                        near.iter().sum::<f64>() / near.len() as f64
                    }
                })
                .collect();
            // Pushed down from the top, and the overshoot shared by moving the whole column back up.
            let mut placed: Vec<f64> = Vec::with_capacity(column.len());
            for (position, item) in column.iter().enumerate() {
                let least = match position.checked_sub(1) {
                    Some(before) => {
                        placed[before] + (items[column[before]].height() + items[*item].height()) / 2.0 + GAP
                    }
                    None => f64::NEG_INFINITY,
                };
                placed.push(wanted[position].max(least));
            }
            let overshoot = placed
                .iter()
                .zip(&wanted)
                .map(|(got, want)| got - want)
                .sum::<f64>()
                / column.len().max(1) as f64;
            for (item, y) in column.iter().zip(placed) {
                items[*item].y = y - overshoot;
            }
        }
    }
    let top = items
        .iter()
        .map(|item| item.y - item.height() / 2.0)
        .fold(f64::INFINITY, f64::min);
    for item in items {
        item.y += MARGIN - top;
    }
}

fn width(shown: &Box) -> f64 {
    // A fixed-width estimate: the reader's font is not known.
    let title = shown.title.chars().count() as f64 * 8.6;
    let subtitle = shown.subtitle.chars().count() as f64 * 6.2;
    title.max(subtitle) + 24.0
}

fn render(boxes: &[Box], items: &[Item], columns: &[Vec<usize>], paths: &[(Vec<usize>, bool)]) -> String {
    let mut left = Vec::new();
    let mut widths = Vec::new();
    let mut x = MARGIN;
    for column in columns {
        let widest = column
            .iter()
            .filter_map(|item| items[*item].shown)
            .map(|at| width(&boxes[at]))
            .fold(60.0, f64::max);
        left.push(x);
        widths.push(widest);
        x += widest + BETWEEN;
    }
    let bottom = items
        .iter()
        .map(|item| item.y + item.height() / 2.0)
        .fold(0.0, f64::max);
    let legend = bottom + 34.0;
    let total_width = (x - BETWEEN + MARGIN).max(420.0);
    let total_height = legend + 24.0;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total_width:.0}\" height=\"{total_height:.0}\" viewBox=\"0 0 {total_width:.0} {total_height:.0}\" \
         font-family=\"ui-sans-serif, system-ui, sans-serif\">"
    );
    out.push_str(
        "<defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"7.5\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path d=\"M0 0L8 4L0 8z\" fill=\"#57606a\"/></marker></defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
    );
    for (path, dashed) in paths {
        let mut points = Vec::new();
        for (at, item) in path.iter().enumerate() {
            let found = &items[*item];
            let start = left[found.layer];
            let wide = found.shown.map_or(widths[found.layer], |at| width(&boxes[at]));
            if at > 0 {
                points.push((start, found.y));
            }
            if at + 1 < path.len() {
                points.push((start + wide, found.y));
            }
        }
        let mut line = format!("M{:.1} {:.1}", points[0].0, points[0].1);
        for pair in points.windows(2) {
            let ((x1, y1), (x2, y2)) = (pair[0], pair[1]);
            if (y1 - y2).abs() < 0.5 {
                let _ = write!(line, "L{x2:.1} {y2:.1}");
            } else {
                let middle = (x1 + x2) / 2.0;
                let _ = write!(line, "C{middle:.1} {y1:.1} {middle:.1} {y2:.1} {x2:.1} {y2:.1}");
            }
        }
        let dash = if *dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = writeln!(
            out,
            "<path d=\"{line}\" fill=\"none\" stroke=\"#57606a\" stroke-width=\"1.4\"{dash} marker-end=\"url(#end)\"/>"
        );
    }
    for item in items {
        let Some(shown) = item.shown.map(|at| &boxes[at]) else {
            continue;
        };
        let (fill, line) = colours(shown.phase);
        let (x, y) = (left[item.layer], item.y - HEIGHT / 2.0);
        let stroke = if shown.bold { 2.6 } else { 1.2 };
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{HEIGHT}\" rx=\"7\" fill=\"{fill}\" stroke=\"{line}\" stroke-width=\"{stroke}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"14\" font-weight=\"600\" fill=\"#1b1f24\">{}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#57606a\">{}</text>",
            width(shown),
            x + 12.0,
            y + 19.0,
            escaped(&shown.title),
            x + 12.0,
            y + 35.0,
            escaped(&shown.subtitle),
        );
    }
    let mut x = MARGIN;
    for phase in [
        Phase::Sql,
        Phase::Data,
        Phase::Features,
        Phase::Train,
        Phase::Serve,
    ] {
        if !boxes.iter().any(|shown| shown.phase == phase) {
            continue;
        }
        let (fill, line) = colours(phase);
        let _ = writeln!(
            out,
            "<rect x=\"{x:.0}\" y=\"{:.1}\" width=\"14\" height=\"14\" rx=\"3\" fill=\"{fill}\" stroke=\"{line}\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" font-size=\"12\" fill=\"#1b1f24\">{phase}</text>",
            legend - 11.0,
            x + 20.0,
            legend + 1.0,
        );
        x += 40.0 + phase.name().len() as f64 * 7.0;
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: usize, title: &str) -> Box {
        Box {
            id,
            title: title.to_owned(),
            subtitle: "data · <x>".to_owned(),
            phase: Phase::Data,
            bold: false,
        }
    }

    #[test]
    fn boxes_never_overlap_and_text_is_escaped() {
        let boxes: Vec<Box> = (0..40).map(|id| shown(id, &format!("node_{id}"))).collect();
        let edges: Vec<Edge> = (1..40)
            .flat_map(|to| {
                [to / 2, to / 3, to / 7].map(|from| Edge {
                    from,
                    to,
                    dashed: false,
                })
            })
            .filter(|edge| edge.from != edge.to)
            .collect();
        let drawn = svg(&boxes, &edges);
        assert_eq!(drawn, svg(&boxes, &edges));
        assert!(drawn.contains("&lt;x&gt;") && !drawn.contains("<x>"));
        let number = |line: &str, name: &str| -> f64 {
            let start = line.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
            line[start..].split('"').next().unwrap().parse().unwrap()
        };
        let rectangles: Vec<[f64; 4]> = drawn
            .lines()
            .filter(|line| line.starts_with("<rect x=") && line.contains("rx=\"7\""))
            .map(|line| ["x", "y", "width", "height"].map(|name| number(line, name)))
            .collect();
        assert_eq!(rectangles.len(), 40);
        for (at, [x, y, width, height]) in rectangles.iter().enumerate() {
            for [other_x, other_y, other_width, other_height] in &rectangles[at + 1..] {
                let apart = x + width <= *other_x
                    || other_x + other_width <= *x
                    || y + height <= *other_y
                    || other_y + other_height <= *y;
                assert!(apart, "two boxes overlap");
            }
        }
    }
}
