//! Verbs that are programs of their own: `hatch pack` becomes `hatch-pack`, found as git finds its own.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mayfly_commands::Exit;

use super::exit::Failure;

/// The folders in which distributions put programs that other programs call.
const LIBEXEC: [&str; 2] = ["/usr/local/libexec/hatch", "/usr/libexec/hatch"];

/// Replaces this process by the program of a verb, with the arguments after it; returns only on an error.
pub(crate) fn become_program(verb: &str) -> Failure {
    let name = format!("hatch-{verb}");
    let this = env::current_exe().ok();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = folders(this.as_deref(), env::split_paths(&path));
    let Some(program) = find(&name, &folders) else {
        let message = format!(
            "`hatch {verb}` is a program of its own, {name}: install it beside hatch, in {}, or in a folder of PATH",
            LIBEXEC[0]
        );
        return Failure::new(Exit::Failed, message);
    };
    // Only hatch's own name is before the verb.
    let error = Command::new(&program).args(env::args_os().skip(2)).exec();
    Failure::new(Exit::Failed, format!("{}: {error}", program.display()))
}

/// The folders to search, best first: beside this program, below its prefix, in the usual folders, in `PATH`.
fn folders(this: Option<&Path>, path: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let beside = this.and_then(Path::parent);
    let prefix = beside.and_then(Path::parent);
    let own = prefix.map(|prefix| prefix.join("libexec/hatch"));
    let mut folders = Vec::from_iter(beside.map(Path::to_owned));
    folders.extend(own);
    folders.extend(LIBEXEC.map(PathBuf::from));
    // A relative folder would depend on where hatch is called.
    folders.extend(path.filter(|folder| folder.is_absolute()));
    folders
}

/// The first of the folders' files with this name that can be run.
fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let can_be_run = |file: &PathBuf| {
        file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    };
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(can_be_run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn beside_it_then_libexec_then_path() {
        let path = ["/a", "", "b", "/usr/bin"].map(PathBuf::from).into_iter();
        let folders = folders(Some(Path::new("/opt/hatch/bin/hatch")), path);
        let wanted = [
            "/opt/hatch/bin",
            "/opt/hatch/libexec/hatch",
            "/usr/local/libexec/hatch",
            "/usr/libexec/hatch",
            "/a",
            "/usr/bin",
        ];
        assert_eq!(folders, wanted.map(PathBuf::from));
    }

    #[test]
    fn only_what_can_be_run_is_found() {
        let root = tempfile::tempdir().unwrap();
        let folders = ["one", "two", "three", "four"].map(|name| root.path().join(name));
        for folder in &folders[1..] {
            fs::create_dir(folder).unwrap();
        }
        fs::create_dir(folders[1].join("hatch-pack")).unwrap();
        let plain = folders[2].join("hatch-pack");
        fs::write(&plain, "").unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find("hatch-pack", &folders), None);
        let program = folders[3].join("hatch-pack");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("hatch-pack", &folders), Some(program));
    }
}
