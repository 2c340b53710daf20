//! Which names a pickle may import: a named part of the standard library, the project's modules, locked distributions.
//!
//! The standard library's list holds what makes values and nothing that runs code, opens files or looks names up.

use std::collections::BTreeSet;

use super::{Global, PickleFacts};
use crate::project::source::stdlib;

/// Modules and their names, in the order of the modules. `*` stands for every name of the module.
const STANDARD: &[(&str, &str)] = &[
    ("_codecs", "encode"),
    ("_collections_abc", "dict_items dict_keys dict_values"),
    ("_io", "BytesIO StringIO"),
    ("_operator", OPERATORS),
    ("_struct", "Struct"),
    ("array", "_array_reconstructor array"),
    (
        "builtins",
        "ArithmeticError AssertionError AttributeError BaseException Ellipsis Exception FileNotFoundError FloatingPointError \
         IndexError KeyError LookupError MemoryError NotImplemented NotImplementedError OSError OverflowError RuntimeError \
         RuntimeWarning StopIteration TypeError UnicodeDecodeError UserWarning ValueError Warning ZeroDivisionError abs all any ascii \
         bin bool bytearray bytes callable chr complex dict divmod enumerate filter float format frozenset hash hex id int \
         isinstance issubclass iter len list map max min next object oct ord pow range repr reversed round set slice sorted str sum \
         super tuple type zip",
    ),
    ("calendar", "Calendar Day Month"),
    (
        "collections",
        "ChainMap Counter OrderedDict UserDict UserList UserString defaultdict deque",
    ),
    ("copy", "copy deepcopy"),
    ("copyreg", "__newobj__ __newobj_ex__ _reconstructor"),
    ("datetime", "date datetime time timedelta timezone"),
    (
        "decimal",
        "Clamped Context Decimal DivisionByZero FloatOperation Inexact InvalidOperation Overflow Rounded Subnormal Underflow",
    ),
    ("enum", "Enum Flag IntEnum IntFlag StrEnum"),
    ("fractions", "Fraction"),
    ("functools", "partial reduce"),
    ("inspect", "Parameter Signature _ParameterKind _empty"),
    (
        "ipaddress",
        "IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network",
    ),
    (
        "itertools",
        "accumulate chain combinations count cycle islice permutations product repeat starmap takewhile zip_longest",
    ),
    ("json.decoder", "JSONDecoder"),
    ("json.encoder", "JSONEncoder"),
    ("logging", "getLogger"),
    ("math", "*"),
    ("numbers", "*"),
    ("operator", OPERATORS),
    ("pathlib", PATHS),
    ("pathlib._local", PATHS),
    ("random", "Random"),
    ("re", "RegexFlag _compile"),
    ("statistics", "*"),
    ("string", "Formatter Template"),
    ("time", "struct_time"),
    ("types", "GenericAlias MappingProxyType SimpleNamespace"),
    ("typing", "*"),
    ("unicodedata", "category normalize"),
    ("uuid", "SafeUUID UUID"),
    ("warnings", "*"),
    ("weakref", "WeakKeyDictionary WeakSet WeakValueDictionary"),
    ("zoneinfo", "ZoneInfo ZoneInfo._unpickle"),
];

const OPERATORS: &str = "abs add and_ attrgetter concat contains eq floordiv ge gt invert itemgetter le lshift lt matmul mod mul ne \
    neg not_ or_ pos pow rshift sub truediv truth xor";
const PATHS: &str = "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath";

/// Modules that no attribute path may start from: `some.package` + `os.system` is `os.system`.
const REACHED_THROUGH: &[&str] = &[
    "builtins",
    "ctypes",
    "importlib",
    "marshal",
    "multiprocessing",
    "os",
    "pickle",
    "posix",
    "pty",
    "runpy",
    "shutil",
    "socket",
    "subprocess",
    "sys",
];

/// Names of other distributions that run what they are given.
const RUNNERS: &[(&str, &str)] = &[
    ("cloudpickle", "load loads"),
    ("cloudpickle.cloudpickle", "load loads"),
    ("dill", "load loads"),
    ("dill._dill", "load loads"),
    ("joblib", "load"),
    ("joblib.numpy_pickle", "load"),
    ("numexpr", "evaluate"),
    ("numpy", "load"),
    ("numpy.testing._private.utils", "runstring"),
    ("pandas", "eval read_pickle"),
    ("pandas.core.computation.eval", "eval"),
    ("pandas.io.pickle", "read_pickle"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.serialization", "load"),
];

/// A name that may not be in a value that ships.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobalProblem {
    #[error("it would call {0}, which makes no value")]
    Forbidden(Global),
    #[error("it needs {0}, and no locked distribution provides the module")]
    Missing(Global),
    #[error("it needs {0}, and the project has no such module")]
    NoModule(Global),
    #[error("it needs {0}: what was defined in a notebook or a script cannot be imported where it is served")]
    Main(Global),
}

/// Judges every name. `modules` are the project's own, by dotted name; `provided` says whether a locked distribution has a module,
/// and `None` where the lock does not know all modules.
pub fn check_globals(
    facts: &PickleFacts,
    modules: &BTreeSet<String>,
    provided: &dyn Fn(&str) -> Option<bool>,
) -> Vec<GlobalProblem> {
    let judged = facts
        .globals
        .iter()
        .filter_map(|global| judge(global, modules, provided));
    judged.collect()
}

fn judge(
    global: &Global,
    modules: &BTreeSet<String>,
    provided: &dyn Fn(&str) -> Option<bool>,
) -> Option<GlobalProblem> {
    let top = global.module.split('.').next().unwrap_or_default();
    let first = global.name.split('.').next().unwrap_or_default();
    if top == "__main__" || top == "__mp_main__" {
        return Some(GlobalProblem::Main(global.clone()));
    }
    let is_own = modules.iter().any(|module| module.split('.').next() == Some(top));
    let is_provided = provided(&global.module);
    if !is_own && is_standard(&global.module, is_provided) {
        return (!listed(STANDARD, global)).then(|| GlobalProblem::Forbidden(global.clone()));
    }
    let is_path = global.name.contains('.');
    if is_path && REACHED_THROUGH.contains(&first) || listed(RUNNERS, global) {
        return Some(GlobalProblem::Forbidden(global.clone()));
    }
    if is_own {
        return (!modules.contains(&global.module)).then(|| GlobalProblem::NoModule(global.clone()));
    }
    (is_provided == Some(false)).then(|| GlobalProblem::Missing(global.clone()))
}

/// Whether a module is the standard library's. A locked distribution may have one with an underscore in front, and no other.
pub fn is_standard(module: &str, is_provided: Option<bool>) -> bool {
    stdlib::is_standard(module, None) && !(module.starts_with('_') && is_provided == Some(true))
}

fn listed(list: &[(&str, &str)], global: &Global) -> bool {
    let names = list.iter().filter(|(module, _)| *module == global.module);
    let mut names = names.flat_map(|(_, names)| names.split_ascii_whitespace());
    names.any(|name| name == global.name || name == "*" && !global.name.contains('.'))
}
