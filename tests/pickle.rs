//! Pickles as opcodes: streams written by hand, in every protocol, with joblib's arrays between the opcodes, and hostile ones.

use std::collections::BTreeSet;
use std::io::Write;

use mlrails::project::record::{FilesRecord, ValueRecord};
use mlrails::project::source::pickle::{self, Global, GlobalProblem, PickleError, PickleFacts};
use mlrails::project::values;

/// A pickle being written.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn new(protocol: u8) -> Self {
        Self(vec![0x80, protocol])
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.raw(&[0x8c, text.len() as u8]).raw(text.as_bytes())
    }

    /// STACK_GLOBAL.
    fn global(self, module: &str, name: &str) -> Self {
        self.text(module).text(name).raw(b"\x93")
    }

    /// `numpy.dtype(code, False, True)` with its state, as numpy pickles it.
    fn dtype(self, code: &str, size: i8, flags: u8) -> Self {
        self.global("numpy", "dtype")
            .text(code)
            .raw(b"\x89\x88\x87R")
            .raw(b"(K\x03")
            .text("<")
            .raw(b"NNNJ")
            .raw(&i32::from(size).to_le_bytes())
            .raw(b"J\xff\xff\xff\xffK")
            .raw(&[flags])
            .raw(b"tb")
    }

    /// joblib's wrapper of an array of `shape`, up to the BUILD after which the array stands.
    fn wrapper(self, shape: &[u8], dtype: impl FnOnce(Self) -> Self) -> Self {
        let mut this = self
            .global("joblib.numpy_pickle", "NumpyArrayWrapper")
            .raw(b")\x81}(")
            .text("subclass")
            .global("numpy", "ndarray")
            .text("shape")
            .raw(b"(");
        for length in shape {
            this = this.raw(&[b'K', *length]);
        }
        dtype(this.raw(b"t").text("order").text("C").text("dtype"))
            .text("allow_mmap")
            .raw(b"\x88")
            .text("numpy_array_alignment_bytes")
            .raw(b"K\x10ub")
    }

    fn array(self, bytes: &[u8]) -> Self {
        self.raw(&[3, 0xff, 0xff, 0xff]).raw(bytes)
    }

    fn read(&self) -> Result<PickleFacts, PickleError> {
        pickle::inspect(&self.0[..])
    }
}

#[track_caller]
fn refused(bytes: &[u8], reason: &str) {
    match pickle::inspect(bytes) {
        Ok(facts) => panic!("it was taken: {facts:?}"),
        Err(error) => assert!(error.to_string().contains(reason), "{error}"),
    }
}

fn names(facts: &PickleFacts) -> Vec<String> {
    facts.globals.iter().map(ToString::to_string).collect()
}

#[test]
fn every_protocols_way_to_name_things_is_read() {
    // collections.OrderedDict([("a", 1)]) as protocols 0, 1, 2 and 4 write it.
    let zero = b"ccollections\nOrderedDict\np0\n((lp1\n(Va\np2\nI1\ntp3\natp4\nRp5\n.";
    let one = b"ccollections\nOrderedDict\nq\x00(]q\x01]q\x02(X\x01\x00\x00\x00aq\x03K\x01eatq\x04Rq\x05.";
    let two = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01X\x01\x00\x00\x00aq\x02K\x01\x86q\x03a\x85q\x04Rq\x05.";
    let four = b"\x80\x04\x95\x14\0\0\0\0\0\0\0\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94K\x01\x8c\x01a\x94s.";
    for (protocol, bytes) in [(0, &zero[..]), (0, one), (2, two)] {
        let facts = pickle::inspect(bytes).unwrap();
        assert_eq!(
            (names(&facts), facts.protocol),
            (vec!["collections.OrderedDict".to_owned()], protocol)
        );
        assert_eq!(facts.size, bytes.len() as u64);
    }
    // The frame ends in the middle of a name.
    refused(four, "crosses the end of its frame");
    let framed = Writer::new(4)
        .raw(b"\x95")
        .raw(&31u64.to_le_bytes())
        .raw(b"\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94.");
    assert_eq!(framed.read().unwrap().globals.len(), 1);
    let instance = b"(K\x01idatetime\ndate\n.";
    assert_eq!(names(&pickle::inspect(&instance[..]).unwrap()), ["datetime.date"]);
}

#[test]
fn arrays_between_the_opcodes_are_stepped_over() {
    let number = |writer: Writer| writer.dtype("i8", -1, 0);
    // The array's bytes are opcodes, which must not be read as such.
    let hostile = b"cos\nsystem\ncos\nsystem\nxx";
    let facts = Writer::new(4)
        .raw(b"]")
        .wrapper(&[3], number)
        .array(hostile)
        .raw(b"a.")
        .read()
        .unwrap();
    assert_eq!(facts.arrays, 1);
    assert_eq!(
        names(&facts),
        [
            "joblib.numpy_pickle.NumpyArrayWrapper",
            "numpy.dtype",
            "numpy.ndarray"
        ]
    );
    let matrix = Writer::new(4).wrapper(&[2, 3], number).array(&[0; 48]).raw(b".");
    assert_eq!(matrix.read().unwrap().arrays, 1);
    let words = Writer::new(4).wrapper(&[2], |writer| writer.dtype("U2", 8, 8));
    assert!(words.array(&[0; 16]).raw(b".").read().is_ok());
    // An array of objects is a pickle of its own.
    let inner = Writer::new(5).global("decimal", "Decimal").raw(b".");
    let objects = Writer::new(4)
        .wrapper(&[1], |writer| writer.dtype("O8", -1, 63))
        .raw(&inner.0)
        .raw(b".");
    let facts = objects.read().unwrap();
    assert_eq!((facts.streams, facts.protocol), (2, 5));
    assert!(names(&facts).contains(&"decimal.Decimal".to_owned()));
}

#[test]
fn arrays_that_could_be_read_two_ways_are_refused() {
    let number = |writer: Writer| writer.dtype("i8", -1, 0);
    let start = || Writer::new(4).wrapper(&[3], number);
    refused(&start().array(&[0; 23]).raw(b".").0, "ends in the middle");
    refused(&start().raw(&[2, 0xff, 0]).raw(&[0; 24]).raw(b".").0, "padding");
    refused(&start().array(&[0; 25]).raw(b".").0, "not a pickle's opcode");
    let two_sizes = Writer::new(4).wrapper(&[3], |writer| writer.dtype("i8", 4, 0));
    refused(
        &two_sizes.array(&[0; 24]).raw(b".").0,
        "in a way that joblib does not write",
    );
    let huge = Writer::new(4).wrapper(&[255; 9], number);
    refused(&huge.raw(b".").0, "in a way that joblib does not write");
    let framed = Writer::new(4).raw(b"\x95").raw(&1000u64.to_le_bytes());
    refused(
        &framed.wrapper(&[3], number).array(&[0; 24]).raw(b".").0,
        "inside a frame",
    );
    // Making a wrapper where it is not seen: by a call, in a list, twice.
    let class = |writer: Writer| writer.global("joblib.numpy_pickle", "NumpyArrayWrapper");
    let partial = class(Writer::new(4).global("functools", "partial")).raw(b"\x85R)R}b.");
    refused(&partial.0, "in a way that joblib does not write");
    refused(
        &class(Writer::new(4).raw(b"]")).raw(b"a.").0,
        "in a way that joblib does not write",
    );
    refused(
        &class(Writer::new(4)).raw(b")R}b.").0,
        "in a way that joblib does not write",
    );
    let dotted = Writer::new(4).global("joblib.numpy_pickle", "NumpyArrayWrapper.__new__");
    refused(&dotted.raw(b".").0, "in a way that joblib does not write");
}

#[test]
fn names_that_cannot_be_known_are_refused() {
    let made = Writer::new(4)
        .global("operator", "concat")
        .text("o")
        .text("s")
        .raw(b"\x86R")
        .text("system")
        .raw(b"\x93.");
    refused(&made.0, "it cannot be known");
    for opcode in [&b"\x82\x01"[..], b"\x83\x01\x00", b"\x84\x01\0\0\0"] {
        refused(&Writer::new(2).raw(opcode).raw(b".").0, "extension registry");
    }
    refused(b"Pwho\n.", "outside of the file");
    refused(b"\x80\x02NQ.", "outside of the file");
    refused(b"\x80\x05\x97.", "a buffer that is not in the file");
    refused(b"cos \nsystem\n.", "not one that Python has");
    // A name remembered, and made into another by reuse of its place, is still a constant.
    let reused = Writer::new(4)
        .text("posix")
        .raw(b"\x940")
        .raw(b"h\x00")
        .text("system")
        .raw(b"\x93.");
    assert_eq!(names(&reused.read().unwrap()), ["posix.system"]);
}

#[test]
fn every_byte_is_accounted_for() {
    refused(b"", "ends in the middle");
    refused(b"\x80\x04N", "ends in the middle");
    refused(b"\x80\x04N.x", "bytes after the end");
    refused(b"\x80\x04N.\x80\x04cos\nsystem\n.", "bytes after the end");
    refused(b"\x80\x06N.", "a protocol is declared");
    refused(b"N\x80\x04.", "a protocol is declared");
    refused(b"\x80\x04\xfe.", "not a pickle's opcode");
    refused(b"\x80\x04NN.", "values left over");
    refused(b"\x80\x04.", "not there");
    refused(b"\x80\x04(0.", "not there");
    refused(b"\x80\x04h\x05.", "no such place");
    refused(b"\x80\x04Nr\xff\xff\xff\x7f.", "no such place");
    refused(
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx",
        "ends in the middle",
    );
    refused(b"\x80\x04\x95\x09\0\0\0\0\0\0\0N.", "before its frame does");
    refused(b"BZh91AY", "bzip2");
    // A chain of a million tuples is no recursion.
    let mut chain = Writer::new(4).raw(b")");
    chain.0.extend(std::iter::repeat_n(0x85, 1_000_000));
    assert!(chain.raw(b".").read().is_ok());
}

#[test]
fn compressed_streams_are_read_to_their_end() {
    let plain = Writer::new(4).global("decimal", "Decimal").raw(b".").0;
    let level = flate2::Compression::new(3);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
    zlib.write_all(&plain).unwrap();
    let zlib = zlib.finish().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    for (bytes, name) in [(&zlib, "zlib"), (&gzip, "gzip")] {
        let facts = pickle::inspect(&bytes[..]).unwrap();
        assert_eq!((facts.compression, facts.size), (Some(name), plain.len() as u64));
        let mut longer = bytes.clone();
        longer.extend(b"cos\nsystem\n.");
        assert!(pickle::inspect(&longer[..]).is_err(), "{name}");
        assert!(pickle::inspect(&bytes[..bytes.len() - 1]).is_err(), "{name}");
    }
}

#[test]
fn names_are_judged() {
    let own: BTreeSet<String> = ["churn", "churn.features"].map(str::to_owned).into();
    let provided = |module: &str| {
        let top = module.split('.').next().unwrap();
        Some(["numpy", "sklearn", "os", "_loss"].contains(&top))
    };
    let judge = |module: &str, name: &str| {
        let global = Global {
            module: module.to_owned(),
            name: name.to_owned(),
        };
        let facts = PickleFacts {
            globals: [global.clone()].into(),
            ..PickleFacts::default()
        };
        let mut problems = pickle::check_globals(&facts, &own, &provided);
        assert!(problems.len() <= 1);
        problems.pop().map(|problem| match problem {
            GlobalProblem::Forbidden(_) => "forbidden",
            GlobalProblem::Missing(_) => "missing",
            GlobalProblem::NoModule(_) => "no module",
            GlobalProblem::Main(_) => "main",
        })
    };
    for (module, name) in [
        ("collections", "OrderedDict"),
        ("copyreg", "_reconstructor"),
        ("builtins", "set"),
        ("functools", "partial"),
        ("math", "sqrt"),
        ("churn.features", "Encoder"),
        ("sklearn.linear_model._logistic", "LogisticRegression"),
        ("numpy", "dtype"),
        ("_loss", "CyHalfBinomialLoss"),
    ] {
        assert_eq!(judge(module, name), None, "{module}.{name}");
    }
    for (module, name) in [
        ("os", "system"),
        ("_posixsubprocess", "fork_exec"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "open"),
        ("importlib", "import_module"),
        ("pickle", "loads"),
        ("math", "sys.modules"),
        ("sklearn", "os.system"),
        ("churn.features", "os.system"),
        ("numpy.testing._private.utils", "runstring"),
        ("types", "FunctionType"),
    ] {
        assert_eq!(judge(module, name), Some("forbidden"), "{module}.{name}");
    }
    assert_eq!(judge("xgboost.core", "Booster"), Some("missing"));
    assert_eq!(judge("churn.old", "Encoder"), Some("no module"));
    assert_eq!(judge("__main__", "Encoder"), Some("main"));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = pickle::inspect(&bytes[..]);
        let mut declared = vec![0x80, 4];
        declared.extend(&bytes);
        let _ = pickle::inspect(&declared[..]);
    }
}

/// A project's folder with one value in artifacts/, as files.json lists it.
fn value(format: &str, bytes: &[u8]) -> (tempfile::TempDir, FilesRecord) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("artifacts")).unwrap();
    std::fs::write(folder.path().join("artifacts/model.bin"), bytes).unwrap();
    let record = ValueRecord {
        file: "model.bin".to_owned(),
        format: format.to_owned(),
        sha256: String::new(),
        size: bytes.len() as u64,
        modules: None,
    };
    let values = [("model".to_owned(), record)].into();
    (folder, FilesRecord { schema: 1, values })
}

#[test]
fn what_values_need_is_known_before_they_ship() {
    let own: BTreeSet<String> = ["churn", "churn.features"].map(str::to_owned).into();
    let provided = |module: &str| Some(module.starts_with("sklearn") || module == "joblib");
    let needs = |format: &str, bytes: &[u8]| {
        let (folder, files) = value(format, bytes);
        values::needs(
            folder.path(),
            "artifacts",
            &files,
            &["model".to_owned()],
            &own,
            &provided,
        )
    };
    let model = Writer::new(4)
        .global("sklearn.svm", "SVC")
        .global("churn.features", "Encoder")
        .global("collections", "OrderedDict")
        .raw(b"\x87.");
    let found = needs("joblib", &model.0).unwrap();
    assert_eq!(found.own, ["churn.features".to_owned()].into());
    let file = "artifacts/model.bin".to_owned();
    assert_eq!(
        found.others,
        [
            ("joblib".to_owned(), file.clone()),
            ("sklearn.svm".to_owned(), file)
        ]
        .into()
    );
    assert_eq!(needs("json", b"{}").unwrap(), values::Needs::default());
    let refused = |format: &str, bytes: &[u8]| needs(format, bytes).unwrap_err().to_string();
    let missing = Writer::new(4).global("xgboost.core", "Booster").raw(b".");
    assert_eq!(
        refused("pickle", &missing.0),
        "artifacts/model.bin cannot be served: it needs xgboost.core.Booster, and no locked distribution provides the module"
    );
    let hostile = Writer::new(4).global("os", "system").text("id").raw(b"\x85R.");
    assert!(refused("joblib", &hostile.0).contains("it would call os.system"));
    assert_eq!(
        refused("pickle", b"\x80\x04N.x"),
        "artifacts/model.bin is refused"
    );
}
