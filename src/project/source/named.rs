//! Distributions that the serving half needs without importing them: a driver that a URL names, an engine that pandas looks for,
//! a package whose name stands in a text.
//!
//! Takes the texts and calls of the [`Closure`]; gives those that no included distribution answers. The tables are knowledge of
//! other people's libraries, so what comes of them is a warning, never a mistake.

use std::collections::BTreeSet;

use serde::Serialize;
use uv_normalize::PackageName;

use super::distributions::Distributions;
use super::imports::Closure;
use crate::project::place::Place;

/// Something that the code needs by name, and that is not in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unmet {
    /// Distributions of which one would do, the usual one first.
    pub needs: Vec<String>,
    /// The one of them that the project declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// What stands in the code, without a URL's secrets: `"postgresql+psycopg://…"`, `pandas.read_parquet`.
    pub by: String,
    pub place: Place,
}

/// What is known of the project's distributions.
pub struct Known<'a> {
    pub distributions: &'a Distributions,
    /// `[project] dependencies`.
    pub dependencies: BTreeSet<&'a PackageName>,
    /// Those, extras and groups.
    pub declared: BTreeSet<&'a PackageName>,
    /// Whether serving gets it.
    pub included: &'a dyn Fn(&PackageName) -> bool,
}

/// A need that was found.
struct Need {
    /// Distributions of which one would do.
    any: Vec<String>,
    by: String,
    /// Whether the code fails without it. Otherwise it is only worth a word if the project declares it.
    certain: bool,
}

/// What `closure` names and does not get, each once, at the first place that names it.
pub fn unmet(closure: &Closure, known: &Known<'_>) -> Vec<Unmet> {
    let called = closure.called.iter().flat_map(|called| {
        let needs = of_call(&called.name, &called.keywords);
        needs.into_iter().map(|need| (need, &called.place))
    });
    let named = closure.named.iter().flat_map(|named| {
        let needs = of_text(&named.text, known);
        needs.into_iter().map(|need| (need, &named.place))
    });
    let mut found: Vec<Unmet> = Vec::new();
    let mut told: BTreeSet<String> = BTreeSet::new();
    for (need, place) in called.chain(named) {
        let names: Vec<PackageName> = need.any.iter().filter_map(|name| name.parse().ok()).collect();
        if names.iter().any(|name| (known.included)(name)) {
            continue;
        }
        let declared = names.iter().find(|name| known.declared.contains(name));
        if (declared.is_none() && !need.certain) || names.is_empty() {
            continue;
        }
        let subject = declared.unwrap_or(&names[0]).to_string();
        if told.insert(subject) {
            found.push(Unmet {
                needs: names.iter().map(PackageName::to_string).collect(),
                declared: declared.map(PackageName::to_string),
                by: need.by,
                place: place.clone(),
            });
        }
    }
    found.sort_by(|one, other| one.place.order().cmp(&other.place.order()));
    found
}

fn of_call(name: &str, keywords: &[(String, String)]) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut chosen = false;
    for (keyword, value) in keywords {
        let engine = ["engine", "backend", "dtype_backend", "flavor"].contains(&keyword.as_str());
        let Some((_, any)) = ENGINES.iter().find(|(known, _)| engine && known == value) else {
            continue;
        };
        chosen |= keyword == "engine";
        needs.push(Need {
            any: owned(any),
            by: format!("{keyword}=\"{value}\""),
            certain: true,
        });
    }
    if let Some((_, any)) = CALLS.iter().find(|(known, _)| !chosen && *known == name) {
        needs.push(Need {
            any: owned(any),
            by: name.trim_start_matches('.').to_owned(),
            certain: true,
        });
    }
    needs
}

fn of_text(text: &str, known: &Known<'_>) -> Vec<Need> {
    if let Some((scheme, _)) = text.split_once("://") {
        return of_url(scheme, known).into_iter().collect();
    }
    if let Some(bracketed) = text.strip_suffix("[pyarrow]") {
        let any = vec!["pyarrow".to_owned()];
        let by = format!("\"{bracketed}[pyarrow]\"");
        let certain = true;
        return vec![Need { any, by, certain }];
    }
    // A module or a distribution: only what the project depends on, for most texts are column names.
    let of_module = known.distributions.of(text).iter();
    let of_name = text.parse::<PackageName>().ok();
    let any: Vec<String> = of_module
        .cloned()
        .chain(of_name)
        .filter(|name| known.dependencies.contains(name))
        .map(|name| name.to_string())
        .collect();
    if any.is_empty() {
        return Vec::new();
    }
    let by = format!("\"{text}\"");
    let certain = false;
    vec![Need { any, by, certain }]
}

/// `dialect+driver` of a database's URL, or a file system's scheme. Source: SQLAlchemy's "Database URLs".
fn of_url(scheme: &str, known: &Known<'_>) -> Option<Need> {
    let by = format!("\"{scheme}://…\"");
    let (dialect, driver) = match scheme.split_once('+') {
        Some((dialect, driver)) => (dialect, Some(driver)),
        None => (scheme, None),
    };
    let dialects = DIALECTS.iter().find(|(known, _)| *known == dialect);
    if let (Some(driver), Some(_)) = (driver, dialects) {
        let any = match DRIVERS.iter().find(|(known, _)| *known == driver) {
            Some((_, any)) => owned(any),
            None => match known.distributions.of(driver) {
                [] => vec![Distributions::likely(driver)],
                some => some.iter().map(PackageName::to_string).collect(),
            },
        };
        let certain = !any.is_empty();
        return Some(Need { any, by, certain });
    }
    let stores = STORES.iter().find(|(known, _)| *known == scheme);
    let (_, any) = dialects.or(stores)?;
    // Who connects is known only where SQLAlchemy is in: other clients bring their own protocol.
    let sqlalchemy = "sqlalchemy".parse().is_ok_and(|name| (known.included)(&name));
    Some(Need {
        any: owned(any),
        by,
        certain: dialects.is_some() && sqlalchemy && !any.is_empty(),
    })
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

type Table = &'static [(&'static str, &'static [&'static str])];

/// A URL's dialect, and what SQLAlchemy loads for it when no driver is named.
const DIALECTS: Table = &[
    ("postgresql", &["psycopg2", "psycopg2-binary", "psycopg"]),
    ("postgres", &["psycopg2", "psycopg2-binary", "psycopg"]),
    ("mysql", &["mysqlclient", "pymysql"]),
    ("mariadb", &["mysqlclient", "mariadb", "pymysql"]),
    ("oracle", &["cx-oracle", "oracledb"]),
    ("mssql", &["pyodbc", "pymssql"]),
    ("snowflake", &["snowflake-sqlalchemy"]),
    ("bigquery", &["sqlalchemy-bigquery"]),
    ("duckdb", &["duckdb-engine"]),
    ("redshift", &["sqlalchemy-redshift"]),
    ("clickhouse", &["clickhouse-sqlalchemy", "clickhouse-connect"]),
    (
        "databricks",
        &["databricks-sqlalchemy", "databricks-sql-connector"],
    ),
    ("trino", &["trino"]),
    ("sqlite", &[]),
];

/// A URL's driver, where its distribution has another name; an empty list is part of Python.
const DRIVERS: Table = &[
    ("psycopg", &["psycopg", "psycopg-binary"]),
    ("psycopg2", &["psycopg2", "psycopg2-binary"]),
    ("asyncpg", &["asyncpg"]),
    ("pg8000", &["pg8000"]),
    ("mysqldb", &["mysqlclient"]),
    ("pymysql", &["pymysql"]),
    ("mysqlconnector", &["mysql-connector-python"]),
    ("mariadbconnector", &["mariadb"]),
    ("aiomysql", &["aiomysql"]),
    ("asyncmy", &["asyncmy"]),
    ("pyodbc", &["pyodbc"]),
    ("aioodbc", &["aioodbc"]),
    ("pymssql", &["pymssql"]),
    ("cx_oracle", &["cx-oracle"]),
    ("oracledb", &["oracledb"]),
    ("aiosqlite", &["aiosqlite"]),
    ("pysqlite", &[]),
    ("redshift_connector", &["redshift-connector"]),
];

/// A file system's scheme, and what fsspec loads for it.
const STORES: Table = &[
    ("s3", &["s3fs"]),
    ("s3a", &["s3fs"]),
    ("gs", &["gcsfs"]),
    ("gcs", &["gcsfs"]),
    ("abfs", &["adlfs"]),
    ("az", &["adlfs"]),
    ("hf", &["huggingface-hub"]),
];

/// What `engine=` and its like are given, and the distribution behind it.
const ENGINES: Table = &[
    ("pyarrow", &["pyarrow"]),
    ("fastparquet", &["fastparquet"]),
    ("openpyxl", &["openpyxl"]),
    ("xlsxwriter", &["xlsxwriter"]),
    ("xlrd", &["xlrd"]),
    ("pyxlsb", &["pyxlsb"]),
    ("odf", &["odfpy"]),
    ("calamine", &["python-calamine", "fastexcel"]),
    ("lxml", &["lxml"]),
    ("numba", &["numba"]),
    ("numexpr", &["numexpr"]),
    ("h5netcdf", &["h5netcdf"]),
    ("netcdf4", &["netcdf4"]),
    ("zarr", &["zarr"]),
    ("tensorflow", &["tensorflow", "tensorflow-cpu"]),
];

/// What a function imports when it is called; methods, whose object is not known, begin with a dot.
const CALLS: Table = &[
    ("pandas.read_parquet", &["pyarrow", "fastparquet"]),
    (".to_parquet", &["pyarrow", "fastparquet"]),
    ("pandas.read_feather", &["pyarrow"]),
    (".to_feather", &["pyarrow"]),
    ("pandas.read_orc", &["pyarrow"]),
    (
        "pandas.read_excel",
        &["openpyxl", "python-calamine", "xlrd", "pyxlsb", "odfpy"],
    ),
    (".to_excel", &["openpyxl", "xlsxwriter"]),
    ("pandas.read_hdf", &["tables"]),
    (".to_hdf", &["tables"]),
    ("pandas.read_html", &["lxml", "html5lib"]),
    ("pandas.read_xml", &["lxml"]),
    (".to_markdown", &["tabulate"]),
    ("geopandas.read_parquet", &["pyarrow"]),
    ("polars.read_excel", &["fastexcel"]),
];

#[cfg(test)]
mod tests {
    use super::super::imports::{Called, Named};
    use super::*;
    use crate::project::SourceText;

    fn names(text: &str) -> Vec<PackageName> {
        text.split_whitespace()
            .map(|name| name.parse().unwrap())
            .collect()
    }

    /// What is said of a text or a call (`pandas.read_csv engine=pyarrow`) with these dependencies, of which the second list is in.
    #[track_caller]
    fn check(code: &str, dependencies: &str, included: &str, expected: &[&str]) {
        let place = SourceText::new("serve.py", "").place(0..0);
        let mut closure = Closure::default();
        match code.split_once(' ') {
            Some((name, keywords)) => closure.called.push(Called {
                name: name.to_owned(),
                keywords: keywords
                    .split_whitespace()
                    .map(|keyword| keyword.split_once('=').unwrap())
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                place,
            }),
            None => closure.named.push(Named {
                text: code.to_owned(),
                place,
            }),
        }
        let (dependencies, included) = (names(dependencies), names(included));
        let known = Known {
            distributions: &Distributions::assumed(&dependencies),
            dependencies: dependencies.iter().collect(),
            declared: dependencies.iter().collect(),
            included: &|name| included.contains(name),
        };
        let found: Vec<String> = unmet(&closure, &known)
            .into_iter()
            .map(|unmet| match unmet.declared {
                Some(declared) => format!("{} left out: {declared}", unmet.by),
                None => format!("{} lacks {}", unmet.by, unmet.needs.join("|")),
            })
            .collect();
        assert_eq!(found, expected, "{code}");
    }

    #[test]
    fn drivers_in_urls() {
        let url = "postgresql+psycopg://user:secret@host/db";
        check(url, "psycopg", "psycopg", &[]);
        check(
            url,
            "psycopg",
            "",
            &["\"postgresql+psycopg://…\" left out: psycopg"],
        );
        check(
            url,
            "",
            "",
            &["\"postgresql+psycopg://…\" lacks psycopg|psycopg-binary"],
        );
        check(
            "mysql+own_driver://h",
            "",
            "",
            &["\"mysql+own_driver://…\" lacks own-driver"],
        );
        check(
            "postgresql://h",
            "psycopg2-binary",
            "",
            &["\"postgresql://…\" left out: psycopg2-binary"],
        );
        check("postgresql://h", "", "", &[]);
        check(
            "postgresql://h",
            "",
            "sqlalchemy",
            &["\"postgresql://…\" lacks psycopg2|psycopg2-binary|psycopg"],
        );
        check("postgresql://h", "", "sqlalchemy psycopg", &[]);
        check("sqlite://", "", "sqlalchemy", &[]);
        check("sqlite+pysqlite://", "", "sqlalchemy", &[]);
        check("git+ssh://h", "", "", &[]);
        check("https://h/psycopg", "psycopg", "", &[]);
        check("s3://bucket/x.csv", "s3fs", "", &["\"s3://…\" left out: s3fs"]);
        check("s3://bucket/x.csv", "", "", &[]);
    }

    #[test]
    fn engines_and_what_functions_import_when_called() {
        check(
            "pandas.read_parquet ",
            "",
            "pandas",
            &["pandas.read_parquet lacks pyarrow|fastparquet"],
        );
        check("pandas.read_parquet ", "fastparquet", "fastparquet", &[]);
        check(
            "pandas.read_parquet engine=pyarrow",
            "pyarrow",
            "fastparquet",
            &["engine=\"pyarrow\" left out: pyarrow"],
        );
        check("pandas.read_csv engine=python", "", "", &[]);
        check(
            "pandas.read_csv dtype_backend=pyarrow",
            "",
            "",
            &["dtype_backend=\"pyarrow\" lacks pyarrow"],
        );
        check(".to_excel ", "xlsxwriter", "", &["to_excel left out: xlsxwriter"]);
        check("string[pyarrow]", "", "", &["\"string[pyarrow]\" lacks pyarrow"]);
    }

    #[test]
    fn packages_that_a_text_names() {
        check(
            "en_core_web_sm",
            "en-core-web-sm",
            "",
            &["\"en_core_web_sm\" left out: en-core-web-sm"],
        );
        check(
            "sklearn",
            "scikit-learn",
            "",
            &["\"sklearn\" left out: scikit-learn"],
        );
        check("spend", "pandas", "pandas", &[]);
        check("black", "pandas", "", &[]);
    }
}
