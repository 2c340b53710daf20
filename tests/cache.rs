//! `mlrails cache`: sizes, verification, cleaning.

use std::fs;
use std::os::unix::fs::PermissionsExt;

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
    Mlrails::new(home.path()).args(["cache", "clean"]).run().expect(0);
    assert_eq!(store.blobs().unwrap(), []);
}
