//! Parameters of xl.cfg(5) that hatch does not act on. They are accepted if their value is what hatch does anyway, or
//! if xl ignores them for a PVH guest as well (Xen 4.17: tools/xl/xl_parse.c, `parse_config_data`).

use super::error::{ConfigProblems, shown};
use super::settings::{FileSettings, number};

/// The rule for such a parameter.
enum Rule {
    /// xl reads it only for HVM or PV guests: it has no effect, and a warning says so.
    OtherTypes,
    /// It has no effect for hatch's guests, and there is no warning.
    Silent,
    /// It may have only one of these values. For any other, the error gives the reason.
    Is(&'static [&'static str], &'static str),
    /// The same, with a warning in place of the error.
    Hint(&'static [&'static str], &'static str),
}

use Rule::{Hint, Is, OtherTypes, Silent};

/// In the order of the names, as is [`OTHER_TYPES`].
const RULES: &[(&str, Rule)] = &[
    (
        "acpi",
        Hint(
            &["1"],
            "whether there are ACPI tables follows from the image",
        ),
    ),
    ("altp2m", Is(&["0", "disabled"], "hatch can't turn it on")),
    ("bootloader", Is(&[""], "hatch loads `kernel` itself")),
    ("builder", Is(&["generic"], "hatch makes only PVH guests")),
    ("cap", Is(&["0"], "the guest gets the scheduler's defaults")),
    (
        "cpu_weight",
        Is(&["256"], "the guest gets the scheduler's defaults"),
    ),
    (
        "cpuid",
        Is(&["", "host"], "the guest gets Xen's own default"),
    ),
    ("cpus", Is(&["all"], "hatch does not pin")),
    ("cpus_soft", Is(&["all"], "hatch does not pin")),
    ("driver_domain", Is(&["0"], "hatch makes no driver domains")),
    (
        "hap",
        Is(
            &["1"],
            "hatch makes only guests with hardware-assisted paging",
        ),
    ),
    ("localtime", Hint(&["0"], "the guest's clock is UTC")),
    (
        "max_event_channels",
        Is(&["1023"], "hatch's guests have 1023"),
    ),
    (
        "max_maptrack_frames",
        Is(&["0"], "hatch's guests map no other guest's pages"),
    ),
    ("msr_relaxed", Is(&["0"], "hatch can't turn it on")),
    ("nestedhvm", Is(&["0"], "hatch can't turn it on")),
    ("nomigrate", Silent),
    // Of files for xm.
    ("on_xend_start", Silent),
    ("on_xend_stop", Silent),
    ("oos", Silent),
    (
        "passthrough",
        Is(&["disabled", "default"], "hatch can't pass devices on"),
    ),
    (
        "pool",
        Is(&["Pool-0", "0"], "hatch makes guests in Pool-0 only"),
    ),
    ("pvh", Is(&["1"], "hatch makes only PVH guests")),
    ("pvshim", Is(&["0"], "hatch can't boot PV guests")),
    ("rtc_timeoffset", Hint(&["0"], "the guest's clock is UTC")),
    (
        "shadow_memory",
        Hint(&[], "hatch computes itself what Xen needs for it"),
    ),
    (
        "timer_mode",
        Hint(
            &["1", "no_delay_for_missed_ticks"],
            "of no effect: the guest's timer is Xen's",
        ),
    ),
    ("vmtrace_buf_kb", Is(&["0"], "hatch can't turn it on")),
];

/// Parameters that xl reads for HVM or PV guests, or for device models, boot loaders and devices that hatch's guests do
/// not have.
const OTHER_TYPES: &[&str] = &[
    "acpi_firmware",
    "acpi_laptop_slate",
    "acpi_s3",
    "acpi_s4",
    "altp2mhvm",
    "apic",
    "bios",
    "bios_path_override",
    "boot",
    "bootloader_args",
    "device_model",
    "device_model_args",
    "device_model_args_hvm",
    "device_model_args_pv",
    "device_model_override",
    "device_model_stubdomain_override",
    "device_model_stubdomain_seclabel",
    "device_model_user",
    "device_model_version",
    "device_tree",
    "display",
    "dm_restrict",
    "e820_host",
    "firmware_override",
    "gfx_passthru",
    "hdtype",
    "hpet",
    "keymap",
    "mca_caps",
    "mmio_hole",
    "ms_vm_genid",
    "nographic",
    "nx",
    "opengl",
    "pae",
    "pci_msitranslate",
    "pci_permissive",
    "pci_power_mgmt",
    "pci_seize",
    "pvshim_cmdline",
    "pvshim_extra",
    "pvshim_path",
    "rdm",
    "rdm_mem_boundary",
    "sdl",
    "serial",
    "smbios_firmware",
    "soundhw",
    "spice",
    "spice_clipboard_sharing",
    "spice_image_compression",
    "spice_streaming_video",
    "spiceagent_mouse",
    "spicedisable_ticketing",
    "spicehost",
    "spicepasswd",
    "spiceport",
    "spicetls_port",
    "spiceusbredirection",
    "spicevdagent",
    "stdvga",
    "stubdomain_cmdline",
    "stubdomain_kernel",
    "stubdomain_memory",
    "stubdomain_ramdisk",
    "usb",
    "usbdevice",
    "usbversion",
    "vendor_device",
    "vga",
    "videoram",
    "viridian",
    "vkb_device",
    "vnc",
    "vncdisplay",
    "vnclisten",
    "vncpasswd",
    "vncunused",
    "vncviewer",
    "vpt_align",
    "xauthority",
    "xen_platform_pci",
];

/// Applies the rules to all such parameters of a file.
pub(super) fn settle(settings: &mut FileSettings, warnings: &mut ConfigProblems) {
    // A file has fewer parameters than there are rules.
    for name in settings.names() {
        if OTHER_TYPES.binary_search(&name.as_str()).is_ok() {
            settle_one(settings, warnings, &name, &OtherTypes);
        } else if let Ok(at) = RULES.binary_search_by(|(known, _)| (*known).cmp(&name))
            && let Some((_, rule)) = RULES.get(at)
        {
            settle_one(settings, warnings, &name, rule);
        }
    }
}

fn settle_one(settings: &mut FileSettings, warnings: &mut ConfigProblems, name: &str, rule: &Rule) {
    let Some((line, value)) = settings.any(name) else {
        return;
    };
    let is_so = |values: &[&str]| {
        value
            .as_deref()
            .is_some_and(|value| values.iter().any(|so| says(value, so)))
    };
    let what = || match &value {
        Some(value) => format!("{name} is {}", shown(value)),
        None => format!("{name} is a list"),
    };
    match rule {
        OtherTypes => warnings.add(line, format!("{name} has no effect for a PVH guest")),
        Silent => {}
        Is(values, _) | Hint(values, _) if is_so(values) => {}
        Is(_, why) => settings.problems.add(line, format!("{}: {why}", what())),
        Hint(_, why) => warnings.add(line, format!("{}: {why}", what())),
    }
}

/// Whether two values are the same for xl: as numbers, where both are.
fn says(value: &str, so: &str) -> bool {
    match (number(value), number(so)) {
        (Some(value), Some(so)) => value == so,
        _ => value == so,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigProblems, GuestFile, Overrides, parse};
    use super::{OTHER_TYPES, RULES};

    /// Reads the least configuration with one more line.
    fn read(more: &str) -> Result<GuestFile, ConfigProblems> {
        let least = "name = 'm'\ntype = 'pvh'\nkernel = '/k'\nmemory = 8\n";
        parse("test.cfg", &format!("{least}{more}"), &Overrides::default())
    }

    #[test]
    fn rules_are_found_by_name() {
        assert!(OTHER_TYPES.is_sorted() && RULES.is_sorted_by_key(|(name, _)| name));
    }

    #[test]
    fn parameters_that_say_what_is_so() {
        for quiet in [
            "acpi=1",
            "hap=1",
            "nomigrate=1",
            "nomigrate=0",
            "pool='Pool-0'",
            "timer_mode=1",
            "timer_mode='no_delay_for_missed_ticks'",
            "localtime=0",
            "rtc_timeoffset=0",
            "builder='generic'",
            "passthrough='disabled'",
            "nestedhvm=0",
            "driver_domain='0x0'",
            "cpus='all'",
            "cpus=['all']",
            "cpu_weight=256",
            "cpuid='host'",
            "cpuid=[]",
            "max_event_channels=1023",
            "max_maptrack_frames=0",
            "msr_relaxed=0",
            "on_xend_start='ignore'",
            "pvh=1",
            "irqs=[]",
            "vif=['bridge=b,trusted,script=vif-bridge']",
            "vif=['bridge=b,script=/etc/xen/scripts/vif-bridge']",
        ] {
            assert_eq!(read(quiet).unwrap().warnings(true).count(), 0, "{quiet}");
        }
        for warned in [
            "serial='pty'",
            "serial=['pty', '/dev/ttyS1']",
            "boot='n'",
            "apic=1",
            "vnc=1",
            "acpi=0",
            "localtime=1",
            "timer_mode=3",
            "shadow_memory=16",
            "maxmem=16",
            "on_soft_reset='soft-reset'",
            "vif=['model=e1000']",
            "vif=['gatewaydev=eth0']",
            "vif=['bridge=b,script=vif-of-mine']",
        ] {
            assert_eq!(read(warned).unwrap().warnings(true).count(), 1, "{warned}");
        }
        for (refused, expected) in [
            (
                "hap=0",
                "test.cfg:5: hap is \"0\": hatch makes only guests with",
            ),
            ("builder='hvm'", "builder is \"hvm\": hatch makes only PVH"),
            ("pool='p'", "pool is \"p\": hatch makes guests in Pool-0"),
            ("cpus='0-1'", "cpus is \"0-1\": hatch does not pin"),
            ("cpus=['0', '1']", "cpus is a list: hatch does not pin"),
            ("cpu_weight=512", "cpu_weight is \"512\""),
            ("cpuid=['0x1:ecx=x']", "cpuid is \"0x1:ecx=x\""),
            ("max_event_channels=64", "max_event_channels is \"64\""),
            ("pvh=0", "pvh is \"0\": hatch makes only PVH guests"),
            ("driver_domain=1", "driver_domain is \"1\""),
            ("passthrough='enabled'", "passthrough is"),
            ("bootloader='pygrub'", "bootloader is \"pygrub\""),
            ("firmware='pvgrub64'", "\"firmware\" is not supported"),
            ("seclabel='a:b:c'", "\"seclabel\" is not supported"),
            ("irqs=[5]", "irqs: there is no driver for it"),
            ("on_crash='soft-reset'", "on_crash is \"soft-reset\""),
        ] {
            let said = read(refused).unwrap_err().to_string();
            assert!(said.contains(expected), "{refused:?} gives {said}");
        }
    }
}
