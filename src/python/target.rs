//! For which machine and interpreter: platform, Python version, C library, and what follows from them.
//!
//! It gives wheel tags and marker values. It does not know images, locks, or which interpreters exist.
//!
//! Sources: PEP 425, 600, 656 (tags), the dependency-specifiers specification (markers), OCI image-spec (platform names).

use std::fmt;
use std::str::FromStr;

use uv_pep440::Version;
use uv_pep508::{MarkerEnvironment, MarkerEnvironmentBuilder};
use uv_platform_tags::{Arch, Os, Tags, TagsOptions};

/// A platform under its OCI name (`linux/amd64`). Images are built for the Linux ones; a lock covers them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    LinuxAmd64,
    LinuxArm64,
    LinuxArmV7,
    LinuxPpc64le,
    LinuxS390x,
    LinuxRiscv64,
    Linux386,
    DarwinAmd64,
    DarwinArm64,
    WindowsAmd64,
    WindowsArm64,
}

impl Platform {
    pub const ALL: [Self; 11] = [
        Self::LinuxAmd64,
        Self::LinuxArm64,
        Self::LinuxArmV7,
        Self::LinuxPpc64le,
        Self::LinuxS390x,
        Self::LinuxRiscv64,
        Self::Linux386,
        Self::DarwinAmd64,
        Self::DarwinArm64,
        Self::WindowsAmd64,
        Self::WindowsArm64,
    ];

    /// The OCI name: `os/architecture`, with the variant where the architecture needs one.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "linux/amd64",
            Self::LinuxArm64 => "linux/arm64",
            Self::LinuxArmV7 => "linux/arm/v7",
            Self::LinuxPpc64le => "linux/ppc64le",
            Self::LinuxS390x => "linux/s390x",
            Self::LinuxRiscv64 => "linux/riscv64",
            Self::Linux386 => "linux/386",
            Self::DarwinAmd64 => "darwin/amd64",
            Self::DarwinArm64 => "darwin/arm64",
            Self::WindowsAmd64 => "windows/amd64",
            Self::WindowsArm64 => "windows/arm64",
        }
    }

    pub fn is_linux(self) -> bool {
        self.name().starts_with("linux/")
    }

    /// The platform this program runs on, where it is one of ours.
    pub fn host() -> Option<Self> {
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            other => other,
        };
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "arm" => "arm/v7",
            "powerpc64" => "ppc64le",
            "x86" => "386",
            other => other,
        };
        format!("{os}/{architecture}").parse().ok()
    }

    fn arch(self) -> Arch {
        match self {
            Self::LinuxAmd64 | Self::DarwinAmd64 | Self::WindowsAmd64 => Arch::X86_64,
            Self::LinuxArm64 | Self::DarwinArm64 | Self::WindowsArm64 => Arch::Aarch64,
            Self::LinuxArmV7 => Arch::Armv7L,
            Self::LinuxPpc64le => Arch::Powerpc64Le,
            Self::LinuxS390x => Arch::S390X,
            Self::LinuxRiscv64 => Arch::Riscv64,
            Self::Linux386 => Arch::X86,
        }
    }

    /// `platform_machine` as Python reports it there: Windows and macOS have spellings of their own.
    pub fn machine(self) -> &'static str {
        match self {
            Self::LinuxAmd64 | Self::DarwinAmd64 => "x86_64",
            Self::LinuxArm64 => "aarch64",
            Self::LinuxArmV7 => "armv7l",
            Self::LinuxPpc64le => "ppc64le",
            Self::LinuxS390x => "s390x",
            Self::LinuxRiscv64 => "riscv64",
            Self::Linux386 => "i686",
            Self::DarwinArm64 => "arm64",
            Self::WindowsAmd64 => "AMD64",
            Self::WindowsArm64 => "ARM64",
        }
    }

    /// `sys_platform`, `os_name` and `platform_system` there.
    fn system(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::DarwinAmd64 | Self::DarwinArm64 => ("darwin", "posix", "Darwin"),
            Self::WindowsAmd64 | Self::WindowsArm64 => ("win32", "nt", "Windows"),
            _ => ("linux", "posix", "Linux"),
        }
    }

    /// The marker that is true on this platform: `sys_platform == 'linux' and platform_machine == 'x86_64'`.
    pub fn marker(self) -> uv_pep508::MarkerTree {
        let text = format!(
            "sys_platform == '{}' and platform_machine == '{}'",
            self.system().0,
            self.machine()
        );
        // The text is made of this file's own constants.
        text.parse().unwrap_or(uv_pep508::MarkerTree::FALSE)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, UnknownPlatform> {
        let plain = text.strip_suffix("/v8").unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|platform| platform.name() == plain)
            .ok_or_else(|| UnknownPlatform(text.chars().take(80).collect()))
    }
}

impl serde::Serialize for Platform {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'_, str>>::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: use an OCI name such as linux/amd64 or linux/arm64")]
pub struct UnknownPlatform(String);

/// A Python version: `3.11`, or `3.11.7` where the patch is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PythonVersion {
    pub major: u8,
    pub minor: u8,
    pub patch: Option<u8>,
}

impl PythonVersion {
    pub const fn new(major: u8, minor: u8) -> Self {
        Self {
            major,
            minor,
            patch: None,
        }
    }

    /// Without the patch: what site-packages, tags and locks care about.
    pub fn minor_only(self) -> Self {
        Self { patch: None, ..self }
    }

    /// As markers see it: a missing patch counts as a late one, since bounds such as `>=3.11.4` are floors that any
    /// current interpreter of that minor passes.
    pub fn full(self) -> Version {
        let patch = self.patch.map_or(99, u64::from);
        Version::new([u64::from(self.major), u64::from(self.minor), patch])
    }

    /// `3.11`, as a PEP 440 version.
    pub fn short(self) -> Version {
        Version::new([u64::from(self.major), u64::from(self.minor)])
    }
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(formatter, ".{patch}"))
    }
}

impl FromStr for PythonVersion {
    type Err = InvalidPythonVersion;

    /// Parses `3.11` and `3.11.7`, and the spellings of `.python-version` files: `cpython-3.11`, `python3.11`.
    fn from_str(text: &str) -> Result<Self, InvalidPythonVersion> {
        let invalid = || InvalidPythonVersion(text.chars().take(80).collect());
        let plain = text
            .trim()
            .trim_start_matches("cpython")
            .trim_start_matches("python")
            .trim_start_matches(['-', '@']);
        let mut parts = plain.split('.').map(|part| part.parse::<u8>());
        let mut next = || parts.next().transpose().map_err(|_| invalid());
        let version = Self {
            major: next()?.ok_or_else(invalid)?,
            minor: next()?.ok_or_else(invalid)?,
            patch: next()?,
        };
        if next()?.is_some() || version.major < 3 {
            return Err(invalid());
        }
        Ok(version)
    }
}

impl serde::Serialize for PythonVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PythonVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'_, str>>::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Text that is not a Python version of the form `3.11` or `3.11.7`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Python version such as 3.11")]
pub struct InvalidPythonVersion(String);

/// The C library, with the newest symbol version it has: it decides which manylinux or musllinux wheels load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Libc {
    Glibc { major: u16, minor: u16 },
    Musl { major: u16, minor: u16 },
}

impl fmt::Display for Libc {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc { major, minor } => write!(formatter, "glibc {major}.{minor}"),
            Self::Musl { major, minor } => write!(formatter, "musl {major}.{minor}"),
        }
    }
}

/// What is installed for: one platform, one CPython, one C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    pub platform: Platform,
    pub python: PythonVersion,
    /// On macOS and Windows it says nothing.
    pub libc: Libc,
}

impl Target {
    /// `platform_machine` as Python reports it there.
    pub fn machine(&self) -> &'static str {
        self.platform.machine()
    }

    /// The wheel tags that fit, best first. On macOS those of the oldest version that current CPython is built for: a wheel for a
    /// newer one is not counted on.
    pub fn tags(&self) -> Tags {
        self.tags_of_macos(13)
    }

    /// The same with every macOS that there may be.
    pub fn tags_of_any_macos(&self) -> Tags {
        self.tags_of_macos(99)
    }

    fn tags_of_macos(&self, major: u16) -> Tags {
        let os = match (self.platform, self.libc) {
            (Platform::DarwinAmd64 | Platform::DarwinArm64, _) => Os::Macos { major, minor: 0 },
            (Platform::WindowsAmd64 | Platform::WindowsArm64, _) => Os::Windows,
            (_, Libc::Glibc { major, minor }) => Os::Manylinux { major, minor },
            (_, Libc::Musl { major, minor }) => Os::Musllinux { major, minor },
        };
        let python = (self.python.major, self.python.minor);
        let options = TagsOptions {
            manylinux_compatible: true,
            ..TagsOptions::default()
        };
        let platform = uv_platform_tags::Platform::new(os, self.platform.arch());
        Tags::from_env(platform, python, "cpython", python, options)
            // It fails for unknown implementations and for architectures that an operating system does not have.
            .unwrap_or_else(|error| unreachable!("{self}: {error}"))
    }

    /// The values that environment markers are evaluated with.
    pub fn markers(&self) -> MarkerEnvironment {
        let (sys_platform, os_name, platform_system) = self.platform.system();
        let full = self.python.full().to_string();
        let short = self.python.short().to_string();
        MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: &full,
            os_name,
            platform_machine: self.platform.machine(),
            platform_python_implementation: "CPython",
            // A kernel's release and version cannot be known before the container runs.
            platform_release: "",
            platform_system,
            platform_version: "",
            python_full_version: &full,
            python_version: &short,
            sys_platform,
        })
        .unwrap_or_else(|error| unreachable!("{self}: {error}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} with CPython {}", self.platform, self.python)?;
        if self.platform.is_linux() {
            write!(formatter, " and {}", self.libc)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(platform: Platform, minor: u16) -> Target {
        Target {
            platform,
            python: PythonVersion::new(3, 11),
            libc: Libc::Glibc { major: 2, minor },
        }
    }

    #[test]
    fn every_platform_has_tags_and_markers() {
        for platform in Platform::ALL {
            assert_eq!(platform.name().parse(), Ok(platform));
            let target = target(platform, 36);
            assert!(target.tags().python_tag().is_some());
            assert!(platform.marker().evaluate(&target.markers(), &[]), "{platform}");
        }
    }

    #[test]
    fn glibc_decides_which_wheels_fit() {
        let wheel: uv_distribution_filename::WheelFilename =
            "torch-2.0-cp311-cp311-manylinux_2_28_x86_64.whl".parse().unwrap();
        assert!(wheel.is_compatible(&target(Platform::LinuxAmd64, 36).tags()));
        assert!(!wheel.is_compatible(&target(Platform::LinuxAmd64, 17).tags()));
        assert!(!wheel.is_compatible(&target(Platform::LinuxArm64, 36).tags()));
    }

    #[test]
    fn python_versions_are_parsed_and_refused() {
        assert_eq!("3.11.7".parse::<PythonVersion>().unwrap().to_string(), "3.11.7");
        assert_eq!(
            "cpython-3.12\n".parse::<PythonVersion>(),
            Ok(PythonVersion::new(3, 12))
        );
        for wrong in ["", "3", "2.7", "3.11.7.1", "3.x", "3.999", "pypy3.10"] {
            assert!(wrong.parse::<PythonVersion>().is_err(), "{wrong}");
        }
    }
}
