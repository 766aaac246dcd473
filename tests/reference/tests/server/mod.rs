//! mayfly's own code, in this process.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use mayfly_dns::{Client, Identity, Server, ServerConfig, Transport as Way};
use mayfly_pack::{Options, pack_dir};
use mayfly_reference::SITE;
use mayfly_reference::client::Answers;
use mayfly_reference::questions::{Question, Transport};
use mayfly_site::Pack;

/// The time of the test, which cookies contain.
const NOW: u64 = 1_767_225_600;

/// The answers of the guest's code.
pub(crate) fn mayfly(questions: &[Question]) -> Answers {
    let pack = pack_dir(Path::new(SITE), &Options::default())
        .unwrap()
        .to_vec()
        .unwrap();
    let pack = Pack::open(&pack).unwrap();
    let mut server = Server::new(ServerConfig {
        identity: Identity::from_slice(b"reference").unwrap(),
        rate_limit: None,
        ..ServerConfig::new([7; 16])
    });
    let mut out = vec![0; 65535];
    let mut answer = |question: &Question| {
        let client = Client {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            transport: match question.transport {
                Transport::Udp => Way::Udp,
                Transport::Tcp => Way::Tcp,
            },
        };
        let length = server.answer(&pack, 0, NOW, client, &question.bytes, &mut out)?;
        Some(out[..length].to_vec())
    };
    questions.iter().map(&mut answer).collect()
}
