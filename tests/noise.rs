//! Noise that looks like each format: every reader answers, and none panics, whatever the bytes.

use mlrails::project::place::SourceText;
use mlrails::project::source::{self, sql};
use mlrails::{debian, lock, oci, python};
use proptest::prelude::*;

use crate::support::store::amount;

/// Texts made of a format's own words, of characters that break slicing, and of anything.
fn noise(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "",
        " ",
        "\n",
        "\r\n",
        "\t",
        "\0",
        "é",
        "\u{2028}",
        "\u{feff}",
        "🦀",
        "\\",
        "'",
        "\"",
        "`",
        "#",
        ";",
        "0",
        "1",
        "18446744073709551616",
        "-",
        "_",
        ".",
        "..",
        ":",
        "/",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "<",
        ">",
        "=",
        "$",
        "@",
        "%2f",
    ]);
    let own = prop::sample::select(words.to_vec());
    let part = prop_oneof![
        4 => own.prop_map(str::to_owned),
        3 => odd.prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// Reads many noises; a panic is the failure, and names the text.
fn check(words: &'static [&'static str], read: impl Fn(&str)) {
    let config = ProptestConfig {
        cases: amount(300, 20_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(text in noise(words))| read(&text));
}

#[test]
fn requirements_and_metadata() {
    let words = &[
        "name",
        "Name: a\n",
        "Version: 1.0\n",
        "Requires-Dist: ",
        "Requires-Python: >=3",
        "extra == 'x'",
        " and ",
        " or ",
        " not in ",
        "os_name",
        "python_version < '3'",
        ">=1.0",
        "~=",
        "==1.*",
        "@ https://u:p@h/a.whl",
        "Metadata-Version: 2.1\n",
        "a,sha256=x,1\n",
    ];
    check(words, |text| {
        let _ = python::requirement::parse(text);
        let _ = python::requirement::parse_marker(text);
        let _ = python::requirement::parse(&format!("a ; {text}"));
        let _ = python::metadata::python_specifiers(text);
        let _ = python::metadata::Metadata::parse(text.as_bytes());
        let _ = python::metadata::Metadata::parse(
            format!("Metadata-Version: 2.1\nName: a\nVersion: 1\n{text}").as_bytes(),
        );
        let _ = python::record::parse(text);
        if let Ok(url) = url::Url::parse(&format!("https://h.example/{text}")) {
            let _ = python::file_name_of(&url);
        }
    });
}

#[test]
fn locks() {
    let words = &[
        "lock-version = \"1.0\"\n",
        "created-by = \"x\"\n",
        "[[packages]]\n",
        "name = \"a\"\n",
        "version = \"1\"\n",
        "wheels = [{",
        "url = \"https://h/a-1-py3-none-any.whl\"",
        "hashes = { sha256 = \"00\" }",
        "}]\n",
        "marker = \"",
        "[tool.mlrails]\n",
        "[packages.tool.mlrails]\n",
        "requires = [\"",
        "directory = { path = \"",
        "size = ",
        "upload-time = 1979-05-27T07:32:00Z\n",
        "requires-python = \">=3\"\n",
        "environments = [\"",
        "forks = [\"",
        "python = \"3.11\"\n",
    ];
    check(words, |text| {
        let _ = lock::Lock::parse(text, "pylock.toml");
        let whole = format!("lock-version = \"1.0\"\ncreated-by = \"x\"\n{text}");
        if let Ok(lock) = lock::Lock::parse(&whole, "pylock.toml") {
            let written = lock.to_toml();
            assert_eq!(
                lock::Lock::parse(&written, "pylock.toml").unwrap(),
                lock,
                "{whole}"
            );
        }
    });
}

#[test]
fn queries_and_sources() {
    let words = &[
        "def f(",
        "):\n    ",
        "return ",
        "import ",
        "from . import *\n",
        "class A:\n",
        "lambda ",
        "f\"{",
        "}\"",
        "async ",
        "await ",
        "match ",
        "case ",
        "@a\n",
        "if TYPE_CHECKING:\n    ",
        "x: list[int] = 1\n",
        "'''",
        "\"\"\"",
        ":name",
        "--",
        "/*",
        "*/",
        "$a$",
        "$$",
        "::int",
        "e'",
        "%time\n",
    ];
    check(words, |text| {
        let _ = sql::parameters(text);
        let _ = sql::normalized(text);
        let _ = source::parse(&SourceText::new("a.py", text));
    });
    // A project of noise, from end to end.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("src/a")).unwrap();
    std::fs::write(
        folder.path().join("pyproject.toml"),
        "[project]\nname = \"a\"\nversion = \"1\"\n",
    )
    .unwrap();
    check(words, |text| {
        let serve = format!("def predict(x):\n    return f(x)\n{text}");
        std::fs::write(folder.path().join("src/a/serve.py"), serve).unwrap();
        let _ = mlrails::project::load(folder.path());
    });
}

#[test]
fn project_files() {
    let words = &[
        "[project]\n",
        "name = \"a\"\n",
        "version = \"1\"\n",
        "dependencies = [",
        "\"a>=1\"",
        "]\n",
        "[dependency-groups]\n",
        "{include-group = \"a\"}",
        "[tool.uv]\n",
        "[[tool.uv.index]]\n",
        "url = \"https://u:p@h/\"\n",
        "[tool.uv.sources]\n",
        "a = { git = \"x\" }\n",
        "[tool.mlrails]\n",
        "[image]\n",
        "include = [\"",
        "platforms = [\"linux/amd64\"]\n",
        "[golden]\nrows = ",
        "readme = \"",
        "requires-python = \"",
        "[build-system]\n",
    ];
    let folder = tempfile::tempdir().unwrap();
    check(words, |text| {
        std::fs::write(folder.path().join("pyproject.toml"), text).unwrap();
        let found = mlrails::project::read(folder.path());
        if let Err(mistakes) = found {
            let failure = mlrails::cli::Failure::from(mistakes);
            assert_eq!(failure.code(), 1);
        }
    });
}

#[test]
fn references_and_manifests() {
    let words = &[
        "{\"schemaVersion\":2,",
        "\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",",
        "\"layers\":[",
        "\"digest\":\"sha256:",
        "sha256:../..",
        "registry.example:5000",
        "/",
        "name",
        "@sha256:",
        "]}",
        "\"size\":",
        "-1",
        "1e99",
        "localhost",
        "[::1]",
    ];
    check(words, |text| {
        let _ = text.parse::<oci::Reference>();
        let _ = oci::Reference::of_name(text);
        let _ = text.parse::<mlrails::digest::Digest>();
        let _ = oci::manifest::Document::parse(text.as_bytes(), None);
    });
}

#[test]
fn debian_archives() {
    let words = &[
        "!<arch>\n",
        "debian-binary   0           0     0     100644  4         `\n2.0\n",
        "control.tar.gz",
        "data.tar.xz",
        "`\n",
        "-----BEGIN PGP SIGNED MESSAGE-----\n",
        "Hash: SHA256\n\n",
        "-----BEGIN PGP SIGNATURE-----\n",
        "-----END PGP SIGNATURE-----\n",
        "- ",
        "deb [arch=amd64] ",
        "http://h/debian",
        "bookworm",
        "main",
    ];
    let ring = debian::keys::Keyring::embedded();
    check(words, |text| {
        let _ = debian::package::read("noise", text.as_bytes(), |_| true);
        let _ = ring.verify(text.as_bytes(), 0);
        let _ = debian::mirror::Mirror::parse(text);
        let _ = debian::mirror::Mirror::choose(Some(text));
    });
}

#[test]
fn archives_of_wheels() {
    let words = &[
        "PK\u{3}\u{4}",
        "PK\u{1}\u{2}",
        "PK\u{5}\u{6}",
        "PK\u{6}\u{6}",
        "\0\0\0\0",
        "a/b.py",
        "\u{1}\0",
        "\u{8}\0",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ];
    check(words, |text| {
        let bytes = text.as_bytes();
        let digest = mlrails::digest::Digest::of(bytes);
        assert!(python::wheel::validate("a-1-py3-none-any.whl", digest, bytes).is_err());
        let end = [bytes, b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x20\0\0\0\0\0\0\0\0\0"].concat();
        assert!(python::wheel::validate("a-1-py3-none-any.whl", digest, &end[..]).is_err());
    });
}
