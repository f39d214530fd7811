//! What is wrong with a configuration, one line each: key, value, where it came from, what is allowed.

use std::fmt;

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::value::Value;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, `a.b[0].c`; empty for what concerns a whole source.
    pub key: String,
    /// The value as it was given, as JSON.
    pub value: Option<String>,
    /// Where it came from: a file, a variable, a flag.
    pub source: Option<String>,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.problem.replace('\n', " "))?;
        match &self.source {
            Some(source) => write!(f, " (from {source})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        ConfigErrors(vec![error])
    }
}

/// What the layers hold, for naming values and their sources.
pub(super) struct Provenance<'a> {
    figment: &'a Figment,
    merged: Option<Value>,
}

impl<'a> Provenance<'a> {
    pub(super) fn new(figment: &'a Figment) -> Self {
        Provenance { figment, merged: figment.find_value("").ok() }
    }

    /// An error about a key that was read.
    pub(super) fn error(&self, path: &[String], problem: String) -> ConfigError {
        let found = self.find(path);
        // A value that no layer gave (a default inside of a list) has the source of what holds it.
        let source = (0..=path.len())
            .rev()
            .filter_map(|len| self.find(&path[..len]))
            .find_map(|value| self.figment.get_metadata(value.tag()))
            .map(|metadata| metadata.name.to_string());
        ConfigError { key: dotted(path), value: found.map(json), source, problem }
    }

    /// What serde refused.
    pub(super) fn refused(&self, error: &figment::Error) -> ConfigError {
        let mut path = error.path.clone();
        let problem = match &error.kind {
            Kind::InvalidType(found, expected) => {
                format!("{} is no {}", actual(found), expected.trim_start_matches("a "))
            }
            Kind::InvalidValue(_, expected) => format!("allowed is {expected}"),
            Kind::InvalidLength(found, expected) => format!("{found} items, allowed is {expected}"),
            Kind::UnknownVariant(_, expected) => format!("allowed are {}", expected.join(", ")),
            Kind::UnknownField(field, expected) => {
                if path.last() != Some(field) {
                    path.push(field.clone());
                }
                format!("unknown key, allowed are {}", expected.join(", "))
            }
            Kind::MissingField(field) => {
                path.push(field.to_string());
                "must be given".to_owned()
            }
            other => other.to_string(),
        };
        self.error(&path, problem)
    }

    fn find(&self, path: &[String]) -> Option<&Value> {
        path.iter().try_fold(self.merged.as_ref()?, |value, step| match value {
            Value::Dict(_, dict) => dict.get(step),
            Value::Array(_, items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

fn actual(found: &Actual) -> String {
    match found {
        Actual::Str(_) => "text".to_owned(),
        Actual::Map => "a map".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Unit | Actual::Option => "nothing".to_owned(),
        Actual::Bool(_) => "a boolean".to_owned(),
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number".to_owned(),
        other => other.to_string(),
    }
}

fn json(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "?".to_owned())
}

fn dotted(path: &[String]) -> String {
    let mut key = String::new();
    for step in path {
        if step.parse::<usize>().is_ok() {
            key.push_str(&format!("[{step}]"));
        } else {
            if !key.is_empty() {
                key.push('.');
            }
            key.push_str(step);
        }
    }
    key
}
