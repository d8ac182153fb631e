//! Where values come from: figment merges the file and the environment, toml_edit knows the lines.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Tag, Value},
};
use toml_edit::{Document, Item, TableLike};

use super::{
    error::{At, ConfigError, Problem},
    schema::{Key, Kind},
};

const PREFIX: &str = "PGDETOUR_";
const ENVIRONMENT: &str = "environment";

/// The merged values and the place of each.
pub(super) struct Sources {
    figment: Figment,
    document: Document<String>,
    variables: BTreeMap<String, String>,
    file: Option<Arc<Path>>,
}

impl Sources {
    /// Merges: the environment wins over the text.
    ///
    /// # Errors
    ///
    /// When the text is not TOML: where, and why.
    pub(super) fn merge(
        text: &str,
        file: Option<&Path>,
        environment: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let file: Option<Arc<Path>> = file.map(Arc::from);
        let document = Document::parse(text.to_owned()).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            let at = At { file: file.clone(), line, ..At::default() };
            ConfigError::new(vec![at.mistake(syntax_problem(error.message()))])
        })?;
        let layer = Layer::of_environment(environment, document.as_item());
        let variables = layer.variables.clone();
        let figment = Figment::from(Layer::of_text(document.as_table())).merge(layer);
        Ok(Self { figment, document, variables, file })
    }

    /// The merged values.
    pub(super) fn values(&self) -> Dict {
        self.figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default()
    }

    /// The configuration as a whole.
    pub(super) fn whole(&self) -> At {
        At { file: self.file.clone(), ..At::default() }
    }

    /// Where the value at `path` came from.
    pub(super) fn at(&self, path: &[&str], tag: Tag) -> At {
        let key = path.join(".");
        let from_environment = self.figment.get_metadata(tag).is_some_and(|source| source.name == ENVIRONMENT);
        let variable = from_environment.then(|| self.variables.get(&key).cloned()).flatten();
        if variable.is_some() {
            return At { variable, key, ..At::default() };
        }
        At { file: self.file.clone(), line: self.line(path), variable: None, key }
    }

    /// The line on which the key at `path` stands; for a table that only its children open, the first child's.
    fn line(&self, path: &[&str]) -> Option<usize> {
        let mut item = self.document.as_item();
        let mut start = None;
        for name in path {
            let (key, next) = item.as_table_like()?.get_key_value(name)?;
            start = key.span().map(|span| span.start);
            item = next;
        }
        let header = item.as_table().and_then(toml_edit::Table::span).map(|span| span.start);
        header.or(start).or_else(|| item.span().map(|span| span.start)).map(|start| line_of(self.document.raw(), start))
    }
}

/// toml_edit's first line says what; it never quotes the file.
fn syntax_problem(message: &str) -> Problem {
    let message = message.lines().collect::<Vec<_>>().join(", ");
    Problem::bare(format!("not valid TOML: {message}"))
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// One source's values, for figment to merge.
struct Layer {
    name: &'static str,
    values: Dict,
    /// Key path → variable.
    variables: BTreeMap<String, String>,
}

impl Layer {
    fn of_text(table: &dyn TableLike) -> Self {
        Self { name: "text", values: table_values(table), variables: BTreeMap::new() }
    }

    /// The `PGDETOUR_…` variables, each typed by its key.
    fn of_environment(environment: &[(String, String)], document: &Item) -> Self {
        let mut layer = Self { name: ENVIRONMENT, values: Dict::new(), variables: BTreeMap::new() };
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix(PREFIX).filter(|name| !name.is_empty()) else { continue };
            let mut path: Vec<String> = name.split("__").map(str::to_lowercase).collect();
            if let [first, alias, ..] = path.as_mut_slice()
                && (first == "alias" || first == "service")
            {
                declared_spelling(document.get(first.as_str()), alias);
            }
            let kind = path.last().and_then(|key| Key::named(key)).map_or(Kind::Text, |key| key.kind);
            insert(&mut layer.values, &path, parse(kind, value));
            for depth in 1..=path.len() {
                layer.variables.insert(path[..depth].join("."), variable.clone());
            }
        }
        layer
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn table_values(table: &dyn TableLike) -> Dict {
    table.iter().map(|(key, item)| (key.to_owned(), item_value(item))).collect()
}

fn item_value(item: &Item) -> Value {
    match item {
        Item::Value(value) => toml_value(value),
        Item::Table(table) => Value::from(table_values(table)),
        Item::ArrayOfTables(tables) => {
            Value::from(tables.iter().map(|table| Value::from(table_values(table))).collect::<Vec<_>>())
        }
        Item::None => Value::from(""),
    }
}

fn toml_value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Value::from(text.value().as_str()),
        Toml::Integer(number) => Value::from(*number.value()),
        Toml::Float(number) => Value::from(*number.value()),
        Toml::Boolean(boolean) => Value::from(*boolean.value()),
        Toml::Datetime(time) => Value::from(time.value().to_string()),
        Toml::Array(list) => Value::from(list.iter().map(toml_value).collect::<Vec<_>>()),
        Toml::InlineTable(table) => Value::from(table_values(table)),
    }
}

/// A shell cannot write `-` in a variable: `EU_WEST` means the alias `eu-west` where the file declares it and no `eu_west`.
fn declared_spelling(table: Option<&Item>, alias: &mut String) {
    let Some(declared) = table.and_then(Item::as_table_like) else { return };
    if declared.contains_key(alias) {
        return;
    }
    if let Some((name, _)) = declared.iter().find(|(name, _)| name.replace('-', "_") == *alias) {
        *alias = name.to_owned();
    }
}

fn insert(values: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => drop(values.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let inner = values.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// A variable's text as what its key takes; what does not parse stays text and is found out by the reader.
fn parse(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Count => text.trim().parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Aliases | Kind::Places | Kind::Codes => {
            let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
            let names = inner.split(',').map(|name| name.trim().trim_matches(['"', '\'']));
            Value::from(names.filter(|name| !name.is_empty()).map(Value::from).collect::<Vec<_>>())
        }
        Kind::Duration | Kind::Word(_) | Kind::WordOrDuration(_) | Kind::Text => Value::from(text),
    }
}
