//! The DHCP lease of an interface that gets another link.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::dhcp::{Said, Server, instead, usual};
use mayfly_guest_tests::frames::Dhcp;
use mayfly_guest_tests::{Net, Setup};

#[test]
fn a_new_link_starts_anew() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(100_000);
        server.run(net, 2.0);
        assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.2.80/24");
        // The interface is plugged into another network.
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

/// Offers as usual, and refuses requests.
fn refusal(dhcp: &Dhcp) -> Said {
    if dhcp.kind == 5 {
        instead(dhcp, &[53], &[(53, &[6])])
    } else {
        usual(dhcp)
    }
}

/// Closes and reopens the back end, and waits until the guest has answered on the new link.
fn reconnect(net: &mut Net<'_>) {
    net.xen
        .with(|world| world.netback.unload(&mut world.machine, &mut world.store));
    net.run_for(1.0);
    net.xen.with(|world| world.netback.load(&mut world.store));
    net.run_for(1.0);
    assert!(net.http(guest4(), REQUEST).is_some());
}

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Runs a test on a guest with a lease of 100 seconds.
fn leased<T>(test: impl FnOnce(&mut Net<'_>, &mut Server) -> T) -> T {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(100);
        server.run(net, 2.0);
        assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.2.80/24");
        let value = test(net, &mut server);
        assert_eq!(net.violations(), [""; 0]);
        value
    })
}

#[test]
fn on_a_new_link_the_address_stays_while_the_server_is_asked() {
    leased(|net, server| {
        for _ in 0..3 {
            let requests = server.requests;
            reconnect(net);
            server.run(net, 5.0);
            assert!(server.requests >= requests + 2, "it was asked for");
            assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.2.80/24");
        }
        // It is renewed as before.
        server.run(net, 300.0);
        assert!(net.http(guest4(), REQUEST).is_some());
    });
}

#[test]
fn without_an_answer_the_address_stays_until_its_lease_ends() {
    leased(|net, server| {
        server.up = false;
        // Two reconnections do not make the lease longer.
        reconnect(net);
        server.run(net, 40.0);
        reconnect(net);
        assert!(net.http(guest4(), REQUEST).is_some());
        server.run(net, 60.0);
        assert_eq!(net.guest.stack.addresses(), []);
        let steps = net.steps;
        server.run(net, 60.0);
        assert!(net.steps - steps < 200, "{} steps", net.steps - steps);
        server.up = true;
        server.run(net, 40.0);
        assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.2.80/24");
    });
}

#[test]
fn an_address_that_is_refused_on_a_new_link_is_given_up() {
    leased(|net, server| {
        server.say = refusal;
        reconnect(net);
        let is_given_up = net.until(1.0, |net| {
            server.serve(net);
            net.guest.stack.addresses().is_empty()
        });
        assert!(is_given_up);
        server.say = usual;
        server.run(net, 40.0);
        assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.2.80/24");
    });
}

#[test]
fn another_interface_has_no_lease_before_it_has_asked() {
    // This also holds after a link on which no server has answered.
    for links in [0, 1] {
        leased(|net, _| {
            for _ in 0..links {
                reconnect(net);
            }
            net.xen
                .with(|world| world.netback.unplug(&mut world.machine, &mut world.store));
            net.run_for(1.0);
            net.xen.with(|world| {
                world.netback.plug(&mut world.store);
                world.store.set(b"device/vif/0/mac", b"00:16:3e:00:00:02");
            });
            net.run_for(1.0);
            assert_eq!(net.guest.stack.addresses(), []);
        });
    }
}
