//! What a wheel's tags imply: the marker of the environments that it can be installed in.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use uv_distribution_filename::WheelFilename;
use uv_pep508::MarkerTree;
use uv_platform_tags::{AbiTag, Arch, LanguageTag, PlatformTag};

use crate::python::target::{Libc, Platform};

/// What the tags of a wheel say, as far as a solve asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Implied {
    /// The environments that the wheel fits, as far as markers can say (they know no C library).
    pub marker: MarkerTree,
    /// Whether an ordinary interpreter can load it: wheels for free-threaded or debug builds alone do not count.
    pub ordinary: bool,
    /// Whether it is built for the machine that most images are for.
    pub linux_amd64: bool,
}

/// By the text of the tags: versions of one package share them, and making a marker costs parsing.
static IMPLIED: LazyLock<Mutex<HashMap<String, Implied>>> = LazyLock::new(Mutex::default);

/// What the tags in a wheel's file name say; `None` if `name` is not a wheel's.
pub(super) fn implied(name: &str) -> Option<Implied> {
    // `name-version[-build]-python-abi-platform.whl`: the last three parts are the tags.
    let start = name.rmatch_indices('-').nth(2)?.0;
    let key = name.get(start..)?;
    let mut known = IMPLIED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(implied) = known.get(key) {
        return Some(*implied);
    }
    let wheel: WheelFilename = name.parse().ok()?;
    let mut python = MarkerTree::FALSE;
    for language in wheel.python_tags() {
        for abi in wheel.abi_tags() {
            python = python.or(python_marker(*language, *abi));
        }
    }
    let platform = wheel
        .platform_tags()
        .iter()
        .fold(MarkerTree::FALSE, |all, tag| all.or(platform_marker(tag)));
    let implied = Implied {
        marker: python.and(platform),
        ordinary: wheel.abi_tags().iter().any(
            |abi| !matches!(abi, AbiTag::CPython { variant, .. } if variant.to_string().contains(['t', 'd'])),
        ),
        linux_amd64: wheel
            .platform_tags()
            .iter()
            .any(|tag| tag.is_linux() && tag.is_x86_64()),
    };
    known.insert(key.to_owned(), implied);
    Some(implied)
}

/// Whether `wheel` installs on `platform` with that C library, whatever the interpreter.
pub(super) fn fits_platform(wheel: &WheelFilename, platform: Platform, libc: Libc) -> bool {
    let target = crate::python::target::Target {
        platform,
        python: crate::python::target::PythonVersion::new(3, 12),
        libc,
    };
    static KNOWN: LazyLock<Mutex<HashMap<(Platform, Libc), uv_platform_tags::Tags>>> =
        LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let tags = known.entry((platform, libc)).or_insert_with(|| target.tags());
    wheel.platform_tags().iter().any(|tag| {
        *tag == PlatformTag::Any
            || tags
                .compatibility_tag(
                    &LanguageTag::CPython {
                        python_version: (3, 12),
                    },
                    &AbiTag::None,
                    tag,
                )
                .is_compatible()
    })
}

/// The marker that `text` is. Only for texts composed here, and not for many.
pub(super) fn marker(text: &str) -> MarkerTree {
    static KNOWN: LazyLock<Mutex<HashMap<String, MarkerTree>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(marker) = known.get(text) {
        return *marker;
    }
    let marker = text.parse().unwrap_or(MarkerTree::FALSE);
    known.insert(text.to_owned(), marker);
    marker
}

fn python_marker(language: LanguageTag, abi: AbiTag) -> MarkerTree {
    let from = |major: u8, minor: u8| marker(&format!("python_full_version >= '{major}.{minor}'"));
    let only = |major: u8, minor: u8| marker(&format!("python_version == '{major}.{minor}'"));
    let cpython = || marker("platform_python_implementation == 'CPython'");
    let stable = abi.is_stable_abi();
    let language = match language {
        LanguageTag::None => MarkerTree::TRUE,
        LanguageTag::Python {
            major: 3,
            minor: None,
        } => MarkerTree::TRUE,
        LanguageTag::Python {
            major: 3,
            minor: Some(minor),
        } => from(3, minor),
        // The stable ABI reaches forward from the version that is named.
        LanguageTag::CPython {
            python_version: (major, minor),
        } if stable => from(major, minor).and(cpython()),
        LanguageTag::CPython {
            python_version: (major, minor),
        } => only(major, minor).and(cpython()),
        LanguageTag::CPythonMajor { major: 3 } => cpython(),
        LanguageTag::PyPy {
            python_version: (major, minor),
        } => only(major, minor).and(marker("platform_python_implementation == 'PyPy'")),
        LanguageTag::GraalPy {
            python_version: (major, minor),
        } => only(major, minor).and(marker("platform_python_implementation == 'GraalVM'")),
        _ => MarkerTree::FALSE,
    };
    let abi = match abi {
        AbiTag::None => MarkerTree::TRUE,
        AbiTag::Abi3 | AbiTag::Abi3T => cpython(),
        AbiTag::CPython {
            python_version: (major, minor),
            ..
        } => only(major, minor).and(cpython()),
        AbiTag::PyPy { python_version, .. } => {
            let version = python_version.map_or(MarkerTree::TRUE, |(major, minor)| only(major, minor));
            version.and(marker("platform_python_implementation == 'PyPy'"))
        }
        AbiTag::GraalPy {
            python_version: (major, minor),
            ..
        } => only(major, minor).and(marker("platform_python_implementation == 'GraalVM'")),
        AbiTag::Pyston { .. } => MarkerTree::FALSE,
    };
    language.and(abi)
}

fn platform_marker(tag: &PlatformTag) -> MarkerTree {
    let linux = |arch: &Arch| {
        let machine = match arch {
            Arch::X86 => "i686".to_owned(),
            other => other.to_string(),
        };
        marker(&format!(
            "sys_platform == 'linux' and platform_machine == '{machine}'"
        ))
    };
    match tag {
        PlatformTag::Any => MarkerTree::TRUE,
        PlatformTag::Manylinux { arch, .. }
        | PlatformTag::Manylinux1 { arch }
        | PlatformTag::Manylinux2010 { arch }
        | PlatformTag::Manylinux2014 { arch }
        | PlatformTag::Linux { arch }
        | PlatformTag::Musllinux { arch, .. } => linux(arch),
        PlatformTag::Macos { binary_format, .. } => {
            binary_format
                .platform_machine()
                .iter()
                .fold(MarkerTree::FALSE, |all, machine| {
                    all.or(marker(&format!(
                        "sys_platform == 'darwin' and platform_machine == '{}'",
                        machine.name()
                    )))
                })
        }
        PlatformTag::Win32 => marker("sys_platform == 'win32' and platform_machine == 'x86'"),
        PlatformTag::WinAmd64 => marker("sys_platform == 'win32' and platform_machine == 'AMD64'"),
        PlatformTag::WinArm64 => marker("sys_platform == 'win32' and platform_machine == 'ARM64'"),
        PlatformTag::Pyodide { .. } | PlatformTag::PyEmscripten { .. } => {
            marker("sys_platform == 'emscripten'")
        }
        PlatformTag::Android { .. } => marker("sys_platform == 'android'"),
        PlatformTag::Ios { .. } => marker("sys_platform == 'ios'"),
        // Where a tag's machine cannot be told from a marker, the system's name alone says enough.
        PlatformTag::FreeBsd { .. } => marker("sys_platform == 'freebsd'"),
        PlatformTag::NetBsd { .. } => marker("sys_platform == 'netbsd'"),
        PlatformTag::OpenBsd { .. } => marker("sys_platform == 'openbsd'"),
        PlatformTag::Dragonfly { .. } => marker("sys_platform == 'dragonfly'"),
        PlatformTag::Haiku { .. } => marker("sys_platform == 'haiku'"),
        PlatformTag::Illumos { .. } | PlatformTag::Solaris { .. } => marker("sys_platform == 'sunos5'"),
        PlatformTag::WinIa64 => MarkerTree::FALSE,
    }
}
