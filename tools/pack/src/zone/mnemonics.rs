//! Numbers that master files may write by name (IANA's registries of DNSSEC, DS, CERT and DANE numbers).

/// Names of numbers. The first name of a number is the one that is printed.
pub(crate) struct Names {
    /// The thing that they name, for messages.
    pub(crate) what: &'static str,
    pub(crate) list: &'static [(u16, &'static str)],
}

impl Names {
    /// The number that a word names.
    pub(crate) fn number(&self, word: &[u8]) -> Option<u16> {
        let mut list = self.list.iter();
        let found = list.find(|(_, name)| name.as_bytes().eq_ignore_ascii_case(word));
        found.map(|(number, _)| *number)
    }

    /// The name of a number.
    pub(crate) fn name(&self, number: u16) -> Option<&'static str> {
        let mut list = self.list.iter();
        list.find(|(known, _)| *known == number)
            .map(|(_, name)| *name)
    }
}

/// "DNS Security Algorithm Numbers", with the names of BIND for two of them.
pub(super) static ALGORITHMS: Names = Names {
    what: "an algorithm",
    list: &[
        (0, "DELETE"),
        (1, "RSAMD5"),
        (2, "DH"),
        (3, "DSA"),
        (4, "ECC"),
        (5, "RSASHA1"),
        (6, "DSA-NSEC3-SHA1"),
        (6, "NSEC3DSA"),
        (7, "RSASHA1-NSEC3-SHA1"),
        (7, "NSEC3RSASHA1"),
        (8, "RSASHA256"),
        (10, "RSASHA512"),
        (12, "ECC-GOST"),
        (12, "ECCGOST"),
        (13, "ECDSAP256SHA256"),
        (14, "ECDSAP384SHA384"),
        (15, "ED25519"),
        (16, "ED448"),
        (17, "SM2SM3"),
        (23, "ECC-GOST12"),
        (252, "INDIRECT"),
        (253, "PRIVATEDNS"),
        (254, "PRIVATEOID"),
    ],
};

/// "DNSSEC Delegation Signer (DS) Resource Record (RR) Type Digest Algorithms".
pub(super) static DIGESTS: Names = Names {
    what: "a digest type",
    list: &[
        (1, "SHA-1"),
        (1, "SHA1"),
        (2, "SHA-256"),
        (2, "SHA256"),
        (3, "GOST"),
        (4, "SHA-384"),
        (4, "SHA384"),
        (5, "GOST12"),
        (6, "SM3"),
    ],
};

/// "DNSSEC NSEC3 Hash Algorithms".
pub(super) static NSEC3_HASHES: Names = Names {
    what: "a hash algorithm",
    list: &[(1, "SHA-1"), (1, "SHA1")],
};

/// "CERT Resource Record (RR) Certificate Types" (RFC 4398 section 2.1).
pub(super) static CERTIFICATES: Names = Names {
    what: "a certificate type",
    list: &[
        (1, "PKIX"),
        (2, "SPKI"),
        (3, "PGP"),
        (4, "IPKIX"),
        (5, "ISPKI"),
        (6, "IPGP"),
        (7, "ACPKIX"),
        (8, "IACPKIX"),
        (253, "URI"),
        (254, "OID"),
    ],
};

/// Protocols of KEY (RFC 2535 section 3.1.3).
pub(super) static KEY_PROTOCOLS: Names = Names {
    what: "a protocol",
    list: &[
        (0, "NONE"),
        (1, "TLS"),
        (2, "EMAIL"),
        (3, "DNSSEC"),
        (4, "IPSEC"),
        (255, "ALL"),
    ],
};

/// Certificate usages, selectors and matching types of TLSA (RFC 7218).
pub(super) static USAGES: Names = Names {
    what: "a certificate usage",
    list: &[
        (0, "PKIX-TA"),
        (1, "PKIX-EE"),
        (2, "DANE-TA"),
        (3, "DANE-EE"),
        (255, "PrivCert"),
    ],
};
pub(super) static SELECTORS: Names = Names {
    what: "a selector",
    list: &[(0, "Cert"), (1, "SPKI"), (255, "PrivSel")],
};
pub(super) static MATCHINGS: Names = Names {
    what: "a matching type",
    list: &[
        (0, "Full"),
        (1, "SHA2-256"),
        (2, "SHA2-512"),
        (255, "PrivMatch"),
    ],
};

/// "DSYNC: Location of Synchronization Endpoints" (RFC 9859 section 6.2).
pub(super) static DSYNC_SCHEMES: Names = Names {
    what: "a scheme",
    list: &[(1, "NOTIFY")],
};

/// IP protocols of WKS.
pub(super) static PROTOCOLS: Names = Names {
    what: "a protocol",
    list: &[(1, "icmp"), (6, "tcp"), (17, "udp")],
};

/// Services of WKS, as far as RFC 1010 and present systems agree on their names.
pub(super) static SERVICES: Names = Names {
    what: "a service",
    list: &[
        (5, "rje"),
        (7, "echo"),
        (9, "discard"),
        (11, "systat"),
        (11, "users"),
        (13, "daytime"),
        (15, "netstat"),
        (17, "qotd"),
        (17, "quote"),
        (19, "chargen"),
        (20, "ftp-data"),
        (21, "ftp"),
        (22, "ssh"),
        (23, "telnet"),
        (25, "smtp"),
        (37, "time"),
        (39, "rlp"),
        (42, "nameserver"),
        (43, "whois"),
        (43, "nicname"),
        (53, "domain"),
        (67, "bootps"),
        (68, "bootpc"),
        (69, "tftp"),
        (70, "gopher"),
        (77, "rje"),
        (79, "finger"),
        (80, "http"),
        (88, "kerberos"),
        (95, "supdup"),
        (101, "hostname"),
        (102, "iso-tsap"),
        (105, "csnet-ns"),
        (109, "pop2"),
        (110, "pop3"),
        (111, "sunrpc"),
        (113, "auth"),
        (115, "sftp"),
        (117, "uucp-path"),
        (119, "nntp"),
        (123, "ntp"),
        (137, "netbios-ns"),
        (138, "netbios-dgm"),
        (139, "netbios-ssn"),
        (143, "imap2"),
        (143, "imap"),
        (161, "snmp"),
        (162, "snmp-trap"),
        (179, "bgp"),
        (194, "irc"),
        (389, "ldap"),
        (443, "https"),
        (514, "syslog"),
        (515, "printer"),
        (520, "route"),
        (540, "uucp"),
        (636, "ldaps"),
        (853, "domain-s"),
        (993, "imaps"),
        (995, "pop3s"),
    ],
};
