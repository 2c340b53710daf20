//! The standard library's top-level modules, by Python minor. Names only.
//!
//! Source: `sys.stdlib_module_names` of each version, and PEP 594 for what 3.13 removed.

/// Present in 3.9 and in all versions since.
const ALWAYS: &str = "abc antigravity argparse array ast asyncio atexit base64 bdb binascii bisect builtins bz2 cProfile calendar cmath \
    cmd code codecs codeop collections colorsys compileall concurrent configparser contextlib contextvars copy copyreg csv ctypes curses \
    dataclasses datetime dbm decimal difflib dis doctest email encodings ensurepip enum errno faulthandler fcntl filecmp fileinput \
    fnmatch fractions ftplib functools gc genericpath getopt getpass gettext glob graphlib grp gzip hashlib heapq hmac html http idlelib \
    imaplib importlib inspect io ipaddress itertools json keyword linecache locale logging lzma mailbox marshal math mimetypes mmap \
    modulefinder msvcrt multiprocessing netrc nt ntpath nturl2path numbers opcode operator optparse os pathlib pdb pickle pickletools \
    pkgutil platform plistlib poplib posix posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue \
    quopri random re readline reprlib resource rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtplib \
    socket socketserver sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct subprocess symtable sys \
    sysconfig syslog tabnanny tarfile tempfile termios textwrap this threading time timeit tkinter token tokenize trace traceback \
    tracemalloc tty turtle turtledemo types typing unicodedata unittest urllib uuid venv warnings wave weakref webbrowser winreg \
    winsound wsgiref xml xmlrpc zipapp zipfile zipimport zlib zoneinfo";

/// Added in a minor, or removed in one: name, first minor that has it, first that has not.
const CHANGED: &[(&str, u8, u8)] = &[
    ("tomllib", 11, u8::MAX),
    ("annotationlib", 14, u8::MAX),
    ("compression", 14, u8::MAX),
    ("binhex", 0, 11),
    ("asynchat", 0, 12),
    ("asyncore", 0, 12),
    ("distutils", 0, 12),
    ("imp", 0, 12),
    ("smtpd", 0, 12),
    ("aifc", 0, 13),
    ("audioop", 0, 13),
    ("cgi", 0, 13),
    ("cgitb", 0, 13),
    ("chunk", 0, 13),
    ("crypt", 0, 13),
    ("imghdr", 0, 13),
    ("lib2to3", 0, 13),
    ("mailcap", 0, 13),
    ("msilib", 0, 13),
    ("nis", 0, 13),
    ("nntplib", 0, 13),
    ("ossaudiodev", 0, 13),
    ("pipes", 0, 13),
    ("sndhdr", 0, 13),
    ("spwd", 0, 13),
    ("sunau", 0, 13),
    ("telnetlib", 0, 13),
    ("uu", 0, 13),
    ("xdrlib", 0, 13),
];

/// Whether `module` (dotted) is the standard library's in Python 3.`minor`; in any version when the minor is not known.
pub fn is_standard(module: &str, minor: Option<u8>) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    // `__future__`, `_thread`, and the accelerators behind the public modules.
    if top.starts_with('_') || ALWAYS.split_ascii_whitespace().any(|name| name == top) {
        return true;
    }
    CHANGED.iter().any(|(name, added, removed)| {
        *name == top && minor.is_none_or(|minor| (*added..*removed).contains(&minor))
    })
}

#[cfg(test)]
mod tests {
    use super::is_standard;

    #[test]
    fn versions_differ() {
        assert!(is_standard("os.path", Some(11)) && is_standard("__future__", None));
        assert!(is_standard("tomllib", Some(11)) && !is_standard("tomllib", Some(10)));
        assert!(is_standard("distutils.core", Some(11)) && !is_standard("distutils.core", Some(12)));
        assert!(!is_standard("numpy", None));
    }
}
