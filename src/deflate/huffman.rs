//! Writes a block's tokens in the cheapest of the three block types (RFC 1951 section 3.2).

use std::sync::LazyLock;

use super::BitWriter;
use super::matches::{Kind, Token};

/// Length codes 257..=285: the first length each stands for, and its extra bits (section 3.2.5).
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// The order in which the lengths of the code length codes are written (section 3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const END: usize = 256;

/// The code of a match length, its extra bits and their value.
#[inline]
fn length_code(length: u16) -> (usize, u32, u32) {
    let index = match length {
        258 => 28,
        3..=10 => usize::from(length) - 3,
        _ => {
            // Above 10, each group of four codes doubles the range of the one before.
            let above = u32::from(length) - 3;
            let bits = above.ilog2() - 2;
            (4 * bits + (above >> bits)) as usize
        }
    };
    let (first, extra) = LENGTHS[index];
    (257 + index, u32::from(extra), u32::from(length - first))
}

/// The code of a match distance, its extra bits and their value.
#[inline]
fn distance_code(distance: u16) -> (usize, u32, u32) {
    let above = u32::from(distance) - 1;
    if above < 4 {
        return (above as usize, 0, 0);
    }
    let bits = above.ilog2() - 1;
    (
        (2 * bits + (above >> bits)) as usize,
        bits,
        above & ((1 << bits) - 1),
    )
}

/// Writes one non-final block: `tokens` stand for exactly `bytes`.
pub fn block(tokens: &[Token], bytes: &[u8], out: &mut BitWriter) {
    let mut literals = [0u32; 286];
    let mut distances = [0u32; 30];
    let mut extra_bits = 0;
    literals[END] = 1;
    for token in tokens {
        match token.kind() {
            Kind::Literal(byte) => literals[usize::from(byte)] += 1,
            Kind::Match(length, distance) => {
                let (code, bits, _) = length_code(length);
                literals[code] += 1;
                extra_bits += bits;
                let (code, bits, _) = distance_code(distance);
                distances[code] += 1;
                extra_bits += bits;
            }
        }
    }
    let cost = |counts: &[u32], lengths: &dyn Fn(usize) -> u32| -> u32 {
        counts
            .iter()
            .enumerate()
            .map(|(symbol, count)| count * lengths(symbol))
            .sum()
    };
    let fixed_bits =
        extra_bits + cost(&literals, &|symbol| u32::from(fixed_length(symbol))) + cost(&distances, &|_| 5);
    // Up to a byte boundary, the length twice, the bytes.
    let stored_bits = 8 * (bytes.len() as u32 + 5);
    // Describing codes of its own costs a short block (a tar header between two files) more than they save it.
    let dynamic = (tokens.len() >= SHORT).then(|| {
        let literal_lengths = code_lengths(&literals, 15);
        let distance_lengths = code_lengths(&distances, 15);
        let header = Header::new(&literal_lengths, &distance_lengths);
        let bits = header.bits()
            + extra_bits
            + cost(&literals, &|symbol| u32::from(literal_lengths[symbol]))
            + cost(&distances, &|symbol| u32::from(distance_lengths[symbol]));
        (bits, header, literal_lengths, distance_lengths)
    });
    match dynamic {
        Some((bits, header, literal_lengths, distance_lengths)) if bits < fixed_bits.min(stored_bits) => {
            out.put(0b100, 3);
            header.write(out);
            body(tokens, &codes(&literal_lengths), &codes(&distance_lengths), out);
        }
        _ if stored_bits <= fixed_bits => out.stored(bytes),
        _ => {
            out.put(0b010, 3);
            body(tokens, &FIXED.0, &FIXED.1, out);
        }
    }
}

/// Blocks of fewer tokens are not tried with codes of their own.
const SHORT: usize = 300;

/// The fixed codes.
static FIXED: LazyLock<(Codes, Codes)> = LazyLock::new(|| {
    let lengths: Vec<u8> = (0..288).map(fixed_length).collect();
    (codes(&lengths), codes(&[5; 30]))
});

/// Per symbol, its bits (ready for the writer) and how many.
type Codes = Vec<(u16, u8)>;

/// Section 3.2.6.
fn fixed_length(symbol: usize) -> u8 {
    match symbol {
        0..=143 => 8,
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    }
}

fn body(tokens: &[Token], literals: &[(u16, u8)], distances: &[(u16, u8)], out: &mut BitWriter) {
    let put = |out: &mut BitWriter, (code, bits): (u16, u8)| out.put(u32::from(code), u32::from(bits));
    for token in tokens {
        match token.kind() {
            Kind::Literal(byte) => put(out, literals[usize::from(byte)]),
            Kind::Match(length, distance) => {
                let (code, bits, value) = length_code(length);
                put(out, literals[code]);
                out.put(value, bits);
                let (code, bits, value) = distance_code(distance);
                put(out, distances[code]);
                out.put(value, bits);
            }
        }
    }
    put(out, literals[END]);
}

/// The description of a dynamic block's two codes (section 3.2.7).
struct Header {
    literals: usize,
    distances: usize,
    /// Code length symbols with the value of their extra bits.
    symbols: Vec<(u8, u8)>,
    lengths: Vec<u8>,
    shown: usize,
}

impl Header {
    fn new(literal_lengths: &[u8], distance_lengths: &[u8]) -> Self {
        let used = |lengths: &[u8], least: usize| {
            let last = lengths.iter().rposition(|length| *length > 0);
            last.map_or(least, |last| (last + 1).max(least))
        };
        let literals = used(literal_lengths, 257);
        let distances = used(distance_lengths, 1);
        let all = [&literal_lengths[..literals], &distance_lengths[..distances]].concat();
        let symbols = run_lengths(&all);
        let mut counts = [0u32; 19];
        for (symbol, _) in &symbols {
            counts[usize::from(*symbol)] += 1;
        }
        let lengths = code_lengths(&counts, 7);
        let shown = ORDER.iter().rposition(|symbol| lengths[*symbol] > 0).unwrap_or(0) + 1;
        Self {
            literals,
            distances,
            symbols,
            lengths,
            shown: shown.max(4),
        }
    }

    fn extra(symbol: u8) -> u32 {
        match symbol {
            16 => 2,
            17 => 3,
            18 => 7,
            _ => 0,
        }
    }

    fn bits(&self) -> u32 {
        let symbols: u32 = self
            .symbols
            .iter()
            .map(|(symbol, _)| u32::from(self.lengths[usize::from(*symbol)]) + Self::extra(*symbol))
            .sum();
        5 + 5 + 4 + 3 * self.shown as u32 + symbols
    }

    fn write(&self, out: &mut BitWriter) {
        out.put(self.literals as u32 - 257, 5);
        out.put(self.distances as u32 - 1, 5);
        out.put(self.shown as u32 - 4, 4);
        for symbol in &ORDER[..self.shown] {
            out.put(u32::from(self.lengths[*symbol]), 3);
        }
        let codes = codes(&self.lengths);
        for (symbol, value) in &self.symbols {
            let (code, bits) = codes[usize::from(*symbol)];
            out.put(u32::from(code), u32::from(bits));
            out.put(u32::from(*value), Self::extra(*symbol));
        }
    }
}

/// Code lengths with their repetitions folded: 16 repeats the last one 3-6 times, 17 and 18 are 3-10 and 11-138 zeros.
fn run_lengths(lengths: &[u8]) -> Vec<(u8, u8)> {
    let mut symbols = Vec::new();
    let mut at = 0;
    while at < lengths.len() {
        let value = lengths[at];
        let mut run = lengths[at..]
            .iter()
            .take_while(|length| **length == value)
            .count();
        at += run;
        if value == 0 {
            while run >= 3 {
                let now = run.min(138);
                symbols.push(if now < 11 {
                    (17, now as u8 - 3)
                } else {
                    (18, now as u8 - 11)
                });
                run -= now;
            }
        } else {
            symbols.push((value, 0));
            run -= 1;
            while run >= 3 {
                let now = run.min(6);
                symbols.push((16, now as u8 - 3));
                run -= now;
            }
        }
        symbols.extend(std::iter::repeat_n((value, 0), run));
    }
    symbols
}

/// Huffman code lengths of at most `limit` bits. At least two symbols get one: decoders differ on codes with fewer.
fn code_lengths(counts: &[u32], limit: usize) -> Vec<u8> {
    let mut symbols: Vec<(u32, usize)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(symbol, count)| (*count, symbol))
        .collect();
    let unused = counts
        .iter()
        .take(2)
        .enumerate()
        .filter(|(_, count)| **count == 0);
    for (symbol, _) in unused {
        if symbols.len() < 2 {
            symbols.push((1, symbol));
        }
    }
    symbols.sort_unstable();
    let mut per_length = depths(&symbols, limit);

    // Those that came out too long were counted as `limit`, which overfills the code: make room by moving shorter
    // ones down, one at a time, until it fits exactly.
    let mut total: u32 = (1..=limit)
        .map(|length| (per_length[length] as u32) << (limit - length))
        .sum();
    while total > 1 << limit {
        per_length[limit] -= 1;
        for length in (1..limit).rev() {
            if per_length[length] > 0 {
                per_length[length] -= 1;
                per_length[length + 1] += 2;
                break;
            }
        }
        total -= 1;
    }
    let mut lengths = vec![0; counts.len()];
    let mut rarest_first = symbols.iter();
    for length in (1..=limit).rev() {
        for (_, symbol) in rarest_first.by_ref().take(per_length[length]) {
            lengths[*symbol] = length as u8;
        }
    }
    lengths
}

/// How many leaves of the Huffman tree of `sorted` counts lie at each depth; deeper ones count as `limit`.
fn depths(sorted: &[(u32, usize)], limit: usize) -> Vec<usize> {
    let leaves = sorted.len();
    let mut weights: Vec<u32> = sorted.iter().map(|(count, _)| *count).collect();
    let mut parents = vec![0usize; 2 * leaves - 1];
    let (mut leaf, mut inner) = (0, leaves);
    // Inner nodes come out in order of weight, so two queues do what a heap would.
    while weights.len() < 2 * leaves - 1 {
        let node = weights.len();
        let mut lightest = || {
            let take_leaf =
                leaf < leaves && (inner >= node || inner >= weights.len() || weights[leaf] <= weights[inner]);
            let index = if take_leaf { &mut leaf } else { &mut inner };
            *index += 1;
            *index - 1
        };
        let (one, other) = (lightest(), lightest());
        parents[one] = node;
        parents[other] = node;
        weights.push(weights[one] + weights[other]);
    }
    let mut depth = vec![0usize; 2 * leaves - 1];
    let mut per_length = vec![0; limit + 1];
    for node in (0..2 * leaves - 2).rev() {
        depth[node] = depth[parents[node]] + 1;
        if node < leaves {
            per_length[depth[node].min(limit)] += 1;
        }
    }
    per_length
}

/// Canonical codes (section 3.2.2), already reversed for a writer that starts at the low bit.
fn codes(lengths: &[u8]) -> Codes {
    let mut counts = [0u16; 16];
    for length in lengths.iter().filter(|length| **length > 0) {
        counts[usize::from(*length)] += 1;
    }
    let mut next = [0u16; 16];
    for length in 1..16 {
        next[length] = (next[length - 1] + counts[length - 1]) << 1;
    }
    lengths
        .iter()
        .map(|length| {
            if *length == 0 {
                return (0, 0);
            }
            let code = &mut next[usize::from(*length)];
            *code += 1;
            ((*code - 1).reverse_bits() >> (16 - length), *length)
        })
        .collect()
}
