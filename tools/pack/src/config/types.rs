//! The media types that a site sets: `[types]` by extension, or a list of `[[types]]`.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// Rules for media types; the last match counts.
#[derive(Debug, Default)]
pub struct Types(pub Vec<TypeRule>);

/// A rule for a media type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeRule {
    /// For paths that fit this glob.
    pub files: Option<Spanned<String>>,
    /// For files with this extension, in any case.
    pub extension: Option<Spanned<String>>,
    /// The type.
    #[serde(rename = "type")]
    pub media_type: Spanned<String>,
}

impl<'de> Deserialize<'de> for Types {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Both)
    }
}

/// Deserializes a table or a list of tables.
struct Both;

impl<'de> Visitor<'de> for Both {
    type Value = Types;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of extensions, or tables with `files` or `extension`, and `type`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Types, A::Error> {
        let mut rules = Vec::new();
        while let Some((extension, media_type)) = map.next_entry()? {
            rules.push(TypeRule {
                files: None,
                extension: Some(extension),
                media_type,
            });
        }
        Ok(Types(rules))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Types, A::Error> {
        let mut rules = Vec::new();
        while let Some(rule) = list.next_element()? {
            rules.push(rule);
        }
        Ok(Types(rules))
    }
}
