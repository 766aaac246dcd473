//! The commands in documents, as steps that a test can run.
//!
//! CONTRIBUTING.md, "Commands in documents", has the rules. `tests/e2e` runs the steps in its lab. The unit tests here
//! parse every document without a lab, so that `cargo xtask check` finds a block that cannot be run.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// The machine on which a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// On the host, as the user who runs the test (`$ `).
    Host,
    /// In dom0, as root (`# `).
    Dom0,
}

/// The condition for the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// The command has ended, with exit code 0.
    Ends,
    /// The command has begun, and runs until the document's end.
    Begins,
    /// The command has printed this text, and runs until the document's end.
    Prints(String),
}

/// The action of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a shell command.
    Run {
        /// The machine on which it runs.
        side: Side,
        /// The command, without its prompt.
        command: String,
        /// The condition for the next step.
        until: Until,
    },
    /// Write a file: a relative name on the host, an absolute one in dom0.
    Write {
        /// Its name.
        name: String,
        /// Its content.
        content: Content,
    },
}

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This text.
    Text(String),
    /// A copy of this file or folder of the repository.
    CopyOf(String),
}

/// One step of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line in the document, from 1 on.
    pub line: usize,
    /// The action.
    pub action: Action,
}

/// The steps of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The steps, in the document's order.
    pub steps: Vec<Step>,
    /// The line of each block that is not run, and the reason.
    pub left_out: Vec<(usize, String)>,
}

/// README.md and the documents of `docs/` below `root`, in the order of their names.
///
/// # Errors
/// The documents cannot be listed.
pub fn all(root: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = vec![root.join("README.md")];
    let folder = root.join("docs");
    if folder.exists() {
        let entries = fs::read_dir(&folder);
        for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// A comment about the block below it.
enum Note {
    NotRun(String),
    Keeps(Until),
    File(String),
}

/// Reads a document.
///
/// # Errors
/// A block that does not follow the rules, with its line.
pub fn parse(text: &str) -> Result<Document> {
    let mut document = Document::default();
    let mut lines = (1..).zip(text.lines());
    let mut note = None;
    while let Some((line, text)) = lines.next() {
        let trimmed = text.trim_start();
        let Some(rest) = trimmed.strip_prefix("```") else {
            let above = note.take();
            ensure!(
                above.is_none(),
                "line {line}: the comment above is not above a block"
            );
            note = comment(trimmed, line, &mut document)?;
            continue;
        };
        let (indent, language) = (text.len() - trimmed.len(), rest.trim());
        let mut body = Vec::new();
        loop {
            let Some((_, text)) = lines.next() else {
                bail!("line {line}: a block without an end");
            };
            if text.trim() == "```" {
                break;
            }
            body.push(text.get(indent..).unwrap_or_default());
        }
        let block = Block {
            line,
            language,
            body,
        };
        block
            .read(note.take(), &mut document)
            .with_context(|| format!("line {line}"))?;
    }
    ensure!(note.is_none(), "the last comment is not above a block");
    Ok(document)
}

/// Reads a line that may be a comment for this runner. A copied file becomes a step at once.
fn comment(text: &str, line: usize, document: &mut Document) -> Result<Option<Note>> {
    let inner = text
        .strip_prefix("<!--")
        .and_then(|text| text.split_once("-->"));
    let Some((inner, _)) = inner else {
        return Ok(None);
    };
    let inner = inner.trim();
    if let Some(reason) = inner.strip_prefix("not run") {
        let reason = reason.strip_prefix(':').unwrap_or_default().trim();
        ensure!(
            !reason.is_empty(),
            "line {line}: why is it not run? `not run: REASON`"
        );
        return Ok(Some(Note::NotRun(reason.to_owned())));
    }
    if let Some(rest) = inner.strip_prefix("keeps running") {
        let until = match rest.trim().strip_prefix("after:") {
            Some(text) => Until::Prints(text.trim().to_owned()),
            None if rest.is_empty() => Until::Begins,
            None => bail!("line {line}: `keeps running`, or `keeps running after: TEXT`"),
        };
        return Ok(Some(Note::Keeps(until)));
    }
    let Some(name) = inner.strip_prefix("file:") else {
        return Ok(None);
    };
    let Some((name, source)) = name.split_once(" from ") else {
        return Ok(Some(Note::File(name.trim().to_owned())));
    };
    let (name, source) = (name.trim().to_owned(), source.trim().to_owned());
    let content = Content::CopyOf(source);
    let action = Action::Write { name, content };
    document.steps.push(Step { line, action });
    Ok(None)
}

struct Block<'t> {
    line: usize,
    language: &'t str,
    body: Vec<&'t str>,
}

impl Block<'_> {
    fn read(self, note: Option<Note>, document: &mut Document) -> Result<()> {
        ensure!(
            !["sh", "bash", "shell"].contains(&self.language),
            "commands are fenced as `console`, with `$ ` or `# ` before each"
        );
        let line = self.line;
        let until = match note {
            Some(Note::File(name)) => {
                let content = Content::Text(self.body.iter().map(|l| format!("{l}\n")).collect());
                let action = Action::Write { name, content };
                document.steps.push(Step { line, action });
                return Ok(());
            }
            Some(_) if self.language != "console" => {
                bail!("the comment above is for a block of commands")
            }
            None if self.language != "console" => return Ok(()),
            Some(Note::NotRun(reason)) => {
                document.left_out.push((line, reason));
                return Ok(());
            }
            Some(Note::Keeps(until)) => Some(until),
            None => None,
        };
        let mut commands = self.commands()?;
        ensure!(
            !commands.is_empty(),
            "no command: one begins with `$ ` or `# `"
        );
        if let (Some(until), Some(last)) = (until, commands.last_mut())
            && let Action::Run { until: last, .. } = &mut last.action
        {
            *last = until;
        }
        document.steps.append(&mut commands);
        Ok(())
    }

    /// The commands of the block. The lines between them are their output.
    fn commands(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        let mut lines = (self.line + 1..).zip(&self.body);
        while let Some((line, text)) = lines.next() {
            let prompts = [("$ ", Side::Host), ("# ", Side::Dom0)];
            let found = prompts
                .into_iter()
                .find_map(|(prompt, side)| Some((text.strip_prefix(prompt)?, side)));
            let Some((first, side)) = found else {
                continue;
            };
            let mut command = first.to_owned();
            while command.ends_with('\\') {
                let (_, more) = lines
                    .next()
                    .context("the last command goes on in no line")?;
                command = format!("{command}\n{more}");
            }
            let mut until = Until::Ends;
            if let Some(rest) = command.strip_suffix('&') {
                (command, until) = (rest.trim_end().to_owned(), Until::Begins);
            }
            let action = Action::Run {
                side,
                command,
                until,
            };
            steps.push(Step { line, action });
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(side: Side, command: &str, until: Until) -> Action {
        let command = command.to_owned();
        Action::Run {
            side,
            command,
            until,
        }
    }

    #[test]
    fn steps_are_read_in_order() {
        let text = "
Text with `$ no command`.

```console
$ one --flag
what it prints
$ two \\
    more
```

<!-- file: /etc/x.cfg -->
```toml
# no command
a = 1
```
<!-- file: y.cfg from tools/y.cfg -->
An ordinary <!-- comment --> in between.

1. In a list:
   <!-- keeps running after: it is up -->
   ```console
   # three &
   # four
   ```

<!-- not run: needs a person -->
```console
$ five
```
```rust
$ not_even_rust
```
";
        let Document { steps, left_out } = parse(text).unwrap();
        let write = |name: &str, content| Action::Write {
            name: name.to_owned(),
            content,
        };
        let expected = [
            (5, run(Side::Host, "one --flag", Until::Ends)),
            (7, run(Side::Host, "two \\\n    more", Until::Ends)),
            (
                12,
                write(
                    "/etc/x.cfg",
                    Content::Text("# no command\na = 1\n".to_owned()),
                ),
            ),
            (
                16,
                write("y.cfg", Content::CopyOf("tools/y.cfg".to_owned())),
            ),
            (22, run(Side::Dom0, "three", Until::Begins)),
            (
                23,
                run(Side::Dom0, "four", Until::Prints("it is up".to_owned())),
            ),
        ];
        assert_eq!(steps, expected.map(|(line, action)| Step { line, action }));
        assert_eq!(left_out, [(27, "needs a person".to_owned())]);
    }

    #[test]
    fn what_breaks_the_rules_is_named_with_its_line() {
        for (text, line, expected) in [
            ("```sh\nls\n```\n", 1, "console"),
            ("\n```console\nls\n```\n", 2, "no command"),
            ("```console\n$ ls\n", 1, "without an end"),
            ("```console\n$ ls \\\n```\n", 1, "in no line"),
            ("<!-- not run -->\n```console\n$ ls\n```\n", 1, "why"),
            (
                "<!-- keeps running -->\n\n```console\n$ ls\n```\n",
                2,
                "not above a block",
            ),
            (
                "<!-- keeps running -->\n```toml\n```\n",
                2,
                "block of commands",
            ),
            (
                "<!-- keeps running for ever -->\n",
                1,
                "keeps running after",
            ),
            ("<!-- file: x -->\n", 0, "last comment"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(
                line == 0 || error.contains(&format!("line {line}")),
                "{text:?}: {error}"
            );
        }
    }

    /// Every document of the repository follows the rules, refers to existing files, and leaves few blocks out.
    #[test]
    fn documents_can_be_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut wrong = Vec::new();
        for path in all(&root).unwrap() {
            let text = fs::read_to_string(&path).unwrap();
            let document = match parse(&text) {
                Ok(document) => document,
                Err(e) => {
                    wrong.push(format!("{}: {e:#}", path.display()));
                    continue;
                }
            };
            for Step { line, action } in &document.steps {
                if let Action::Write {
                    content: Content::CopyOf(source),
                    ..
                } = action
                    && !root.join(source).exists()
                {
                    wrong.push(format!("{}: line {line}: no file {source}", path.display()));
                }
            }
            let (run, left_out) = (document.steps.len(), document.left_out.len());
            if left_out > 2 + run {
                wrong.push(format!(
                    "{}: {run} steps, and {left_out} blocks not run",
                    path.display()
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
