//! The command line's frame: help, versions, usage errors, exit codes.

use crate::support::driver::Mlrails;

#[test]
fn no_arguments_is_help_and_a_usage_error() {
    let home = tempfile::tempdir().unwrap();
    let outcome = Mlrails::new(home.path()).run().expect(2);
    assert!(outcome.stderr.contains("Usage: mlrails"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
}

#[test]
fn help_and_version_are_data() {
    let home = tempfile::tempdir().unwrap();
    let help = Mlrails::new(home.path()).args(["--help"]).run().expect(0);
    assert!(help.stdout.contains("--project <DIR>"), "{}", help.stdout);
    assert_eq!(help.stderr, "");
    let version = Mlrails::new(home.path()).args(["--version"]).run().expect(0);
    assert_eq!(
        version.stdout.trim(),
        concat!("mlrails ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn an_unknown_command_is_a_usage_error_with_a_suggestion() {
    let home = tempfile::tempdir().unwrap();
    Mlrails::new(home.path()).args(["chekc"]).run().expect(2);
}

#[test]
fn the_project_is_the_current_folder_by_default() {
    let home = tempfile::tempdir().unwrap();
    let project = crate::support::driver::copy_of("fixtures/churn", home.path());
    let here = Mlrails::new(home.path())
        .folder(&project)
        .args(["graph"])
        .run()
        .expect(0);
    let named = Mlrails::new(home.path())
        .project(&project)
        .args(["graph"])
        .run()
        .expect(0);
    assert_eq!(here.stdout, named.stdout);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let project = crate::support::driver::copy_of("fixtures/churn", home.path());
    let mut command = Mlrails::new(home.path())
        .project(&project)
        .args(["graph"])
        .into_command();
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
