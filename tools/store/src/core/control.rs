//! CONTROL requests: commands to the daemon itself, as `xenstore-control` sends them.

use std::fmt::Write as _;

use mayfly_xenstore::ErrorCode;

use super::connection::ConnectionId;
use super::path::{number, strings};
use super::server::Server;

const HELP: &str = "Supported commands:\n\
    \tcheck\n\
    \thelp\n\
    \tlive-update [-c <cmdline>] [-F] [-t <timeout>] <file>\n\
    \t    Default timeout is 60 seconds.\n\
    \tlog [on|off]\n\
    \tmemreport\n\
    \tprint <string>\n\
    \tquota [set <name> <val>|<domid>]\n";

impl Server {
    pub(super) fn control(
        &mut self,
        by: ConnectionId,
        payload: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        let words = strings(payload);
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let answer = match *words {
            [b"check"] => match self.is_accounted_right() {
                true => "OK".to_owned(),
                false => "the domains' nodes do not match their accounts\n".to_owned(),
            },
            [b"help"] => HELP.to_owned(),
            [b"live-update", ref words @ ..] => self.prepare_update(by, words)?,
            [b"log", b"on" | b"off"] => "OK".to_owned(),
            [b"memreport"] => self.report(),
            [b"print", words] => {
                eprintln!("hatch xenstored: {}", text(words).escape_debug());
                "OK".to_owned()
            }
            [b"quota"] => self.bounds(),
            [b"quota", b"set", name, value] => {
                let value = usize::try_from(number(value)).map_err(|_| ErrorCode::EINVAL)?;
                if !self.quota.set(&text(name), value) {
                    return Err(ErrorCode::EINVAL);
                }
                "OK".to_owned()
            }
            [b"quota", domid] => self.usage_of(domid)?,
            _ => return Err(ErrorCode::EINVAL),
        };
        Ok((answer + "\0").into_bytes())
    }

    fn bounds(&mut self) -> String {
        let mut answer = "Quota settings:\n".to_owned();
        for (name, value) in self.quota.named() {
            let _ = writeln!(answer, "{name:<17}: {value:8}");
        }
        answer
    }

    fn usage_of(&self, text: &[u8]) -> Result<String, ErrorCode> {
        let domid = u16::try_from(number(text)).map_err(|_| ErrorCode::EINVAL)?;
        let domain = self.domains.get(domid).ok_or(ErrorCode::ENOENT)?;
        let usage = domain.usage;
        let rows = [
            ("nodes", usage.nodes),
            ("watches", usage.watches),
            ("transactions", self.open_transactions(domid)),
            ("outstanding", usage.outstanding),
            ("memory", usage.memory),
        ];
        let mut answer = format!("Domain {domid}:\n");
        for (name, value) in rows {
            let _ = writeln!(answer, "{name:<16}: {value:8}");
        }
        Ok(answer)
    }

    fn open_transactions(&self, domid: u16) -> usize {
        let connection = self.ring(domid).and_then(|id| self.connections.get(&id));
        connection.map_or(0, |connection| connection.transactions.len())
    }

    fn report(&self) -> String {
        let mut nodes = 0_usize;
        let mut bytes = 0_usize;
        super::tree::walk("", &self.root, &mut |name, node| {
            nodes += 1;
            bytes += super::view::kept(name, node);
        });
        format!(
            "{nodes} nodes of {bytes} bytes, {} connections, {} domains, {} lost events\n",
            self.connections.len(),
            self.domains.numbers().len(),
            self.lost,
        )
    }
}
