//! Entry points: names that installers make commands of, and the objects behind them.
//!
//! Source: the entry points specification, "Data model" and "File format". Vocabulary only.

use super::wheel::modules::is_dotted;

/// Why `name` cannot be an entry point's; a script's becomes a file in the environment's `bin`.
pub fn check_name(name: &str, is_script: bool) -> Result<(), &'static str> {
    let unwritable = name.chars().any(char::is_control) || name.contains('=') || name.starts_with('[');
    if name.is_empty() || name.trim() != name || unwritable {
        return Err("has a name that no entry point can have");
    }
    let has_drive = name.as_bytes().get(1) == Some(&b':');
    if is_script && (name.contains(['/', '\\']) || name.starts_with('.') || has_drive || name.len() > 255) {
        return Err("has a name that is no plain file name");
    }
    if is_script && is_interpreter(name) {
        return Err("would replace the interpreter");
    }
    Ok(())
}

/// The module and the attribute of `package.module:function`. Extras in brackets are of no consequence to a script.
pub fn script(text: &str) -> Option<(&str, &str)> {
    let target = text.split('[').next().unwrap_or_default();
    let (module, attribute) = target.split_once(':')?;
    let (module, attribute) = (module.trim(), attribute.trim());
    (is_dotted(module) && is_dotted(attribute)).then_some((module, attribute))
}

/// Whether `text` names what an entry point may stand for: a function for a script, a module or an object in it for others.
pub fn is_object(text: &str, is_script: bool) -> bool {
    let module = text.split('[').next().unwrap_or_default().trim();
    script(text).is_some() || (!is_script && is_dotted(module))
}

/// Whether a script of this name would stand where the interpreter is.
pub fn is_interpreter(name: &str) -> bool {
    name.strip_prefix("python")
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scripts_are_file_names() {
        for name in ["churn", "churn-train", "churn.train", "python-churn", "ünchurn"] {
            assert_eq!(check_name(name, true), Ok(()), "{name}");
        }
        for name in [
            "../x",
            "a/b",
            "a\\b",
            "..",
            ".hidden",
            "C:x",
            "python",
            "python3.11",
            "",
            " a",
            "a\n",
            "a=b",
            "[a",
        ] {
            assert!(check_name(name, true).is_err(), "{name:?}");
        }
        // Nothing becomes a file of a plugin's name.
        assert_eq!(check_name("org/plugin", false), Ok(()));
        assert!(check_name("a\nb", false).is_err());
    }

    #[test]
    fn objects() {
        assert_eq!(script("a.b : c.d [x]"), Some(("a.b", "c.d")));
        for text in ["a.b", "a.b:", ":c", "a b:c", "a:b:c", "a;import os:c"] {
            assert_eq!(script(text), None, "{text}");
        }
        assert!(
            is_object("a.b", false)
                && is_object("a.b:c", false)
                && !is_object("a.b", true)
                && !is_object("../a", false)
        );
    }
}
