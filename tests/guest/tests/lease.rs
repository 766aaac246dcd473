//! What becomes of a DHCP lease when the interface gets another link.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use mayfly_guest_tests::Setup;
use mayfly_guest_tests::dhcp::Server;

#[test]
fn a_new_link_starts_anew() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(100_000);
        server.run(net, 2.0);
        assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.2.80/24");
        // It is plugged into another network.
        net.xen
            .with(|world| world.netback.unload(&mut world.machine, &mut world.store));
        net.run_for(1.0);
        server.address = [10, 0, 3, 80];
        server.from = [10, 0, 3, 2];
        server.router = [10, 0, 3, 2];
        net.xen.with(|world| world.netback.load(&mut world.store));
        server.run(net, 2.0);
        assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.3.80/24");
    });
}
