//! Checks that property tests use the seed of `tests/seeds`: with another configuration, each run would use another
//! seed.

use std::str::FromStr;

use anyhow::{Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};

use super::Source;

/// The required start of `proptest!`, without spaces.
const CONFIGURED: &str = "#![proptest_config(mayfly_seeds::cases(";

/// Reports each file with a property test that begins otherwise.
pub(super) fn check(sources: &[Source], wrong: &mut Vec<String>) -> Result<()> {
    // Parse only files that contain the word.
    let named = |source: &&Source| source.is_rust() && source.text.contains("proptest!");
    for Source { path, text } in sources.iter().filter(named) {
        let tokens = TokenStream::from_str(text).map_err(|e| anyhow!("{path} is not Rust: {e}"))?;
        if !all_configured(tokens) {
            wrong.push(format!(
                "{path} has a property test that does not begin with {CONFIGURED}...))]"
            ));
        }
    }
    Ok(())
}

/// Whether each `proptest! { ... }` among `tokens` begins with the shared configuration.
fn all_configured(tokens: TokenStream) -> bool {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let calls = tokens.windows(3).filter_map(|window| match window {
        [
            TokenTree::Ident(name),
            TokenTree::Punct(bang),
            TokenTree::Group(body),
        ] if name == "proptest" && bang.as_char() == '!' => Some(body.stream()),
        _ => None,
    });
    let begins_well = |body: TokenStream| {
        let text: String = body.to_string().split_whitespace().collect();
        text.starts_with(CONFIGURED)
    };
    calls.into_iter().all(begins_well)
        && tokens.iter().all(|token| match token {
            TokenTree::Group(group) => all_configured(group.stream()),
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_of_its_own_is_found() {
        let is_right = |text| all_configured(TokenStream::from_str(text).unwrap());
        let right = "proptest! { #![proptest_config(mayfly_seeds::cases(9))] fn f(x: u8) {} }";
        let (inner, second) = (
            format!("mod tests {{ {right} }}"),
            format!("{right} proptest! {{ fn g(x: u8) {{}} }}"),
        );
        for text in [
            right,
            &inner,
            "// proptest! {}",
            "use proptest::prelude::*;",
        ] {
            assert!(is_right(text), "{text}");
        }
        for text in [
            "proptest! { fn f(x: u8) {} }",
            "mod tests { proptest::proptest! { fn f(x: u8) {} } }",
            "proptest! { #![proptest_config(Config::default())] fn f(x: u8) {} }",
            &second,
        ] {
            assert!(!is_right(text), "{text}");
        }
    }
}
