//! `mlrails cache`: sizes, verification, cleaning.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mlrails::layers::LayerError;
use mlrails::layers::recipe::Form;
use mlrails::store::Store;

use crate::support::driver::Mlrails;

#[test]
fn a_damaged_blob_is_found_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("cache")).unwrap();
    let sound = store.put(b"sound").unwrap();
    let damaged = store.put(b"flipped").unwrap();
    let path = store.blob_path(&damaged);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"flopped").unwrap();

    let size = Mlrails::new(home.path())
        .args(["--format", "json", "cache", "size"])
        .run()
        .expect(0)
        .json();
    assert_eq!(size["blobs"], 2);
    let outcome = Mlrails::new(home.path())
        .args(["--format", "json", "cache", "verify"])
        .run()
        .expect(1);
    assert_eq!(outcome.json()["damaged"][0], damaged.to_string());
    assert!(!path.exists() && store.blob_path(&sound).exists());
    Mlrails::new(home.path())
        .args(["cache", "verify"])
        .run()
        .expect(0);
    // What was unpacked to be run lies outside of the blobs.
    let unpacked = store.folder().join("interpreters/one/bin");
    fs::create_dir_all(&unpacked).unwrap();
    Mlrails::new(home.path()).args(["cache", "clean"]).run().expect(0);
    assert_eq!(store.blobs().unwrap(), []);
    assert!(!unpacked.exists());
}

#[test]
fn layers_are_made_again_from_wheels_that_stay() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("cache")).unwrap();
    let kept = store.put(b"a wheel's bytes").unwrap();
    let mut tree = mlrails::tree::Tree::new();
    tree.insert_file("app/a", b"content".as_slice(), mlrails::tree::PLAIN)
        .unwrap();
    let key = mlrails::digest::Digest::of(b"a recipe");
    let make =
        || {
            mlrails::layers::keyed_layer::<LayerError>(&store, (key, Form::Gzip), 0, "values", || {
                Ok(tree.clone())
            })
            .unwrap()
        };
    let made = make();
    assert_eq!(made.origin, mlrails::layers::Origin::Made);
    assert_eq!(make().origin, mlrails::layers::Origin::Stored);
    let freed = Mlrails::new(home.path())
        .args(["--format", "json", "cache", "clean", "--layers"])
        .run()
        .expect(0)
        .json();
    assert_eq!(freed["freed_bytes"], made.layer.size);
    assert_eq!(store.blobs().unwrap(), [kept]);
    let again = make();
    assert_eq!(again.origin, mlrails::layers::Origin::Made);
    assert_eq!(again.layer.digest, made.layer.digest);
}

#[test]
fn what_nobody_used_is_pruned() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("cache")).unwrap();
    let prune = |words: &[&str]| {
        Mlrails::new(home.path())
            .env("MLRAILS_CACHE_DIR", home.path().join("cache"))
            .args(["cache", "prune"].iter().chain(words))
            .run()
    };
    // Three blobs of a kilobyte each, used ten, five and no days ago.
    let blobs: Vec<_> = [10, 5, 0]
        .map(|days: u64| (days, store.put(&[days as u8; 1000]).unwrap()))
        .into();
    let age = || {
        for (days, digest) in &blobs {
            if store.blob_size(digest).is_none() {
                continue;
            }
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
            let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
            fs::File::open(store.blob_path(digest))
                .unwrap()
                .set_times(times)
                .unwrap();
        }
    };
    let there = || -> Vec<u64> {
        let left = blobs
            .iter()
            .filter(|(_, digest)| store.blob_size(digest).is_some());
        left.map(|(days, _)| *days).collect()
    };
    age();
    store.keep_record("pages", "a", &"b").unwrap();
    prune(&["--older-than", "2w"]).expect(0).says(&[]);
    assert_eq!(there(), [10, 5, 0]);
    prune(&["--older-than", "7d"]).expect(0);
    assert_eq!(there(), [5, 0]);
    prune(&["--max-size", "1500 B"]).expect(0);
    assert_eq!(there(), [0]);
    assert!(
        store.record::<String>("pages", "a").is_some(),
        "a record that is in use stays"
    );
    for wrong in [&[][..], &["--max-size", "7"], &["--older-than", "soon"]] {
        prune(wrong).expect(2);
    }
    prune(&["--max-size", "0B"]).expect(0);
    assert_eq!((there(), store.usage().unwrap().records), (vec![], 0));
}
