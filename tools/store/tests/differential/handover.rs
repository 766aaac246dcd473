//! A live update of the C xenstored, in which our code reads the state that it has written, restores a server from it,
//! and writes that server's state for the next C xenstored. So it shows both directions.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mayfly_lab::{Set, unpacked};
use mayfly_store::core::{Descriptors, SavedState, Server};

use crate::daemon::FOLDER;
use crate::ours::{Domains, quota};

/// The variable that names the folder of the daemon whose state is translated.
const VARIABLE: &str = "MAYFLY_TRANSLATE";

/// Writes the program that the C xenstored becomes: it translates the state by [`translate`], and becomes a C xenstored
/// again.
pub(crate) fn translator(folder: &Path) -> PathBuf {
    let path = folder.join("successor");
    if !path.exists() {
        let own = std::env::current_exe().unwrap();
        let root = unpacked(Set::Dom0, &|step| eprintln!("{step}")).unwrap();
        let text = format!(
            "#!/bin/sh\nenv -u LD_PRELOAD -u LD_LIBRARY_PATH {VARIABLE}={} {} --ignored --exact handover::translate >&2 || exit\nexec {} \"$@\"\n",
            folder.display(),
            own.display(),
            root.join(FOLDER).join("xenstored").display(),
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    path
}

#[test]
#[ignore = "not a test: the other tests run it in a process of its own"]
fn translate() {
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return;
    };
    let file = folder.join("run/xenstored/state_dump");
    let bytes = fs::read(&file).unwrap();
    let state = SavedState::parse(&bytes).unwrap();
    let (listener, events, _) = state.descriptors();
    let states = fs::read(folder.join("domains")).unwrap();
    let states = (0..).zip(states).filter(|(_, state)| *state != 0);
    let mut domains = Domains {
        states: states.collect(),
        ports: HashMap::new(),
    };
    let restored = Server::restored(quota(), false, &state, &mut domains).unwrap();
    let descriptors = Descriptors {
        listener,
        events,
        sockets: restored.sockets.into_iter().collect(),
        ports: domains.ports,
    };
    let translated = restored.server.save(&descriptors).unwrap();
    fs::write(&file, translated).unwrap();
}
