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
