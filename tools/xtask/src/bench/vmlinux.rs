//! Extracts the ELF kernel from a bzImage, because decompressing it in the guest would dominate the measurement.

use anyhow::{Context, Result, bail, ensure};

const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Size of a decompressed block, except of the last (lz4's "legacy" frame format).
const BLOCK: usize = 8 << 20;

/// Extracts the kernel from a bzImage (Linux `Documentation/arch/x86/boot.rst`: `setup_sects`, `payload_offset` and
/// `payload_length`, from protocol 2.08 on).
pub(crate) fn extract(image: &[u8]) -> Result<Vec<u8>> {
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "not a bzImage");
    let sectors = match image.get(0x1f1).copied().unwrap_or(0) {
        0 => 4,
        n => usize::from(n),
    };
    let payload = word(image, 0x248)?;
    let length = word(image, 0x24c)?;
    let start = (sectors + 1) * 512 + payload;
    let packed = image
        .get(start..start + length)
        .context("the bzImage is cut")?;
    let kernel = unpack(packed)?;
    ensure!(
        kernel.starts_with(b"\x7fELF"),
        "the bzImage holds no ELF kernel"
    );
    Ok(kernel)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let Some(mut rest) = packed.strip_prefix(&LZ4_LEGACY) else {
        bail!(
            "the kernel is compressed with {:02x?}, which is not the LZ4 of Debian's cloud kernel",
            packed.get(..4)
        );
    };
    let mut kernel = Vec::new();
    // After the last block comes the kernel's size.
    while rest.len() > 4 {
        let length = word(rest, 0)?;
        let block = rest
            .get(4..4 + length)
            .context("the kernel's LZ4 data is cut")?;
        kernel.extend(lz4_flex::block::decompress(block, BLOCK).context("the kernel's LZ4 data")?);
        rest = rest.get(4 + length..).unwrap_or_default();
    }
    ensure!(
        word(rest, 0)? == kernel.len(),
        "the kernel's LZ4 data gives {} bytes",
        kernel.len()
    );
    Ok(kernel)
}

fn word(bytes: &[u8], at: usize) -> Result<usize> {
    let word = bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .context("the bzImage is cut")?;
    Ok(usize::try_from(u32::from_le_bytes(word))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(kernel: &[u8], size: usize) -> Vec<u8> {
        let packed = lz4_flex::block::compress(kernel);
        let mut payload = LZ4_LEGACY.to_vec();
        payload.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        payload.extend(packed);
        payload.extend(u32::try_from(size).unwrap().to_le_bytes());
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn the_kernel_comes_out_whole() {
        let kernel = [b"\x7fELF".as_slice(), &[7; 5000]].concat();
        assert_eq!(extract(&image(&kernel, kernel.len())).unwrap(), kernel);
    }

    #[test]
    fn damage_is_an_error() {
        let kernel = [b"\x7fELF".as_slice(), &[7; 5000]].concat();
        assert!(extract(&image(&kernel, 1)).is_err());
        let whole = image(&kernel, kernel.len());
        for cut in [0, 0x205, 0x24d, whole.len() - 5] {
            assert!(extract(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(extract(&image(b"MZ no kernel", 12)).is_err());
    }
}
