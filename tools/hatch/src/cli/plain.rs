//! Reads the plain command lines of `create` and `destroy`, which scripts run for each guest, without clap. Describing a verb to clap takes
//! more memory and code than the rest of the start, and each page of both costs a page fault. clap reads every other command line, and
//! words every error.

use std::ffi::OsString;

use super::domains::Domains;
use super::{Command, create, destroy};

/// Reads a command line of a verb, flags without values, and the file or the domains; `None` for any other.
pub(super) fn read(words: &[OsString]) -> Option<Command> {
    let words: Vec<&str> = words
        .iter()
        .skip(1)
        .map(|word| word.to_str())
        .collect::<Option<_>>()?;
    let (verb, words) = words.split_first()?;
    let (flags, rest): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| word.starts_with('-'));
    if rest.iter().any(|word| word.is_empty()) {
        return None;
    }
    match (*verb, rest.as_slice()) {
        ("create", [file]) => create(&flags, file).map(Command::Create),
        ("destroy", [_, ..]) => destroy(&flags, rest).map(Command::Destroy),
        _ => None,
    }
}

fn create(flags: &[&str], file: &str) -> Option<create::Arguments> {
    let mut arguments = create::Arguments::of(file);
    set(
        flags,
        &mut [
            (&["-p", "--paused"], &mut arguments.paused),
            (&["--console"], &mut arguments.console),
            (&["--pool"], &mut arguments.pool),
            (&["--no-pool"], &mut arguments.no_pool),
            (&["--timeline"], &mut arguments.timeline),
            (&["--json"], &mut arguments.json),
        ],
    )?;
    (!(arguments.pool && arguments.no_pool)).then_some(arguments)
}

fn destroy(flags: &[&str], domains: Vec<&str>) -> Option<destroy::Arguments> {
    let mut arguments = destroy::Arguments {
        domains: Domains {
            domains: domains.into_iter().map(str::to_owned).collect(),
            ..Domains::default()
        },
        wait: false,
    };
    set(
        flags,
        &mut [
            (&["--wait"], &mut arguments.wait),
            (&["--force"], &mut arguments.domains.force),
            (&["--json"], &mut arguments.domains.json),
        ],
    )?;
    Some(arguments)
}

/// The words of a flag, and whether it is given.
type Flag<'a> = (&'a [&'a str], &'a mut bool);

/// Sets the given flags. Returns `None` for an unknown flag and for one that is given twice, which clap refuses.
fn set(given: &[&str], known: &mut [Flag<'_>]) -> Option<()> {
    for word in given {
        let (_, flag) = known.iter_mut().find(|(words, _)| words.contains(word))?;
        if std::mem::replace(*flag, true) {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Arguments;

    /// The test tries all triples of these words.
    const WORDS: [&str; 22] = [
        "-p",
        "--paused",
        "--console",
        "--pool",
        "--no-pool",
        "--timeline",
        "--json",
        "--wait",
        "--force",
        "--dry-run",
        "-N",
        "--name",
        "--name=x",
        "--template",
        "-pN",
        "--",
        "-",
        "",
        "web.cfg",
        "7",
        "--pause",
        "--help",
    ];

    fn lines(verb: &str) -> Vec<Vec<OsString>> {
        let mut lines = Vec::new();
        for first in WORDS {
            for second in WORDS {
                for third in WORDS {
                    let line = ["hatch", verb, first, second, third];
                    for length in 2..=line.len() {
                        let words = line.iter().take(length).copied();
                        lines.push(words.map(OsString::from).collect());
                    }
                }
            }
        }
        lines.sort();
        lines.dedup();
        lines
    }

    #[test]
    fn what_is_plain_is_read_as_clap_reads_it() {
        let mut plain = 0;
        for verb in ["create", "destroy", "list"] {
            for words in lines(verb) {
                let Some(command) = read(&words) else {
                    continue;
                };
                plain += 1;
                let clap = Arguments::try_parse_from(&words)
                    .unwrap_or_else(|error| panic!("{words:?}: {error}"));
                assert_eq!(
                    format!("{command:?}"),
                    format!("{:?}", clap.command),
                    "{words:?}"
                );
            }
        }
        assert!(plain > 300, "{plain}");
    }

    #[test]
    fn what_scripts_say_is_plain() {
        for line in [
            "hatch create web.cfg",
            "hatch create -p --json --no-pool web.cfg",
            "hatch create web.cfg --console --timeline",
            "hatch destroy web",
            "hatch destroy --json --wait web 7",
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert!(read(&words).is_some(), "{line}");
        }
        for line in ["hatch", "hatch create", "hatch destroy", "hatch list"] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert!(read(&words).is_none(), "{line}");
        }
    }
}
