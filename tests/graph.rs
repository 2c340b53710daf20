//! `graph`: tree, Mermaid, JSON, drawing.

use std::fs;

use serde_json::json;

use crate::support::driver::{Mlrails, repository};

fn graph(fixture: &str, words: &[&str]) -> crate::support::driver::Outcome {
    let home = tempfile::tempdir().unwrap();
    let folder = repository(&format!("fixtures/{fixture}"));
    Mlrails::new(home.path())
        .project(&folder)
        .args(["graph"])
        .args(words)
        .run()
}

#[test]
fn a_tree_from_predict_and_from_what_only_training_has() {
    let outcome = graph("sql_and_folders", &[]).expect(0);
    assert_eq!(
        outcome.stdout,
        "\
predict  answers  src/shop/serve.py:1
├─ model  frozen  src/shop/train.py:9
│  ├─ X  training  src/shop/features/spend.py:4
│  │  ├─ orders  training  sql/orders.sql:1
│  │  └─ spend_stats  frozen  src/shop/train.py:4
│  │     └─ orders  training  sql/orders.sql:1
│  └─ orders  training  sql/orders.sql:1
└─ X  recomputed  src/shop/features/spend.py:4
   ├─ orders  supplied by the request  sql/orders.sql:1
   └─ spend_stats  frozen  src/shop/train.py:4
      └─ orders  training  sql/orders.sql:1

picture  training  src/shop/train.py:13
└─ X  training  src/shop/features/spend.py:4  (above)
"
    );
}

#[test]
fn a_shadow_takes_the_request() {
    let outcome = graph("shadow", &[]).expect(0);
    assert!(
        outcome
            .stdout
            .contains("customers  stands in for training's  src/shop/serve.py:10\n   │  └─ request\n"),
        "{}",
        outcome.stdout
    );
    let mermaid = graph("shadow", &["--mermaid"]).expect(0).stdout;
    assert!(mermaid.starts_with("flowchart LR\n"), "{mermaid}");
    assert!(mermaid.contains("n0 -.->|stands in| n4\n"), "{mermaid}");
    let document = graph("shadow", &["--format", "json"]).expect(0).json();
    let stands_in = json!({"from": "customers", "to": "customers", "stands_in": true});
    assert!(document["edges"].as_array().unwrap().contains(&stands_in));
}

#[test]
fn a_drawing_is_svg_and_nothing_else_is_drawn() {
    let home = tempfile::tempdir().unwrap();
    let drawn = home.path().join("graph.svg");
    let folder = repository("fixtures/sql_and_folders");
    let mlrails = || Mlrails::new(home.path()).project(&folder);
    mlrails()
        .args(["graph", "--output"])
        .args([&drawn])
        .run()
        .expect(0);
    let svg = fs::read_to_string(&drawn).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for name in ["orders", "X", "spend_stats", "model", "picture", "predict"] {
        assert!(svg.contains(&format!(">{name}</text>")), "{name}");
    }
    assert!(!svg.contains(">customers</text>"), "no target needs it");
    mlrails().args(["graph", "--output", "graph.png"]).run().expect(2);
}
