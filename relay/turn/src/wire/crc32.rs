//! The sum of FINGERPRINT (RFC 8489 §14.7).

/// CRC-32 as in ISO 3309 and Ethernet.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CRC_TABLE[usize::from(low ^ byte)]
    })
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut crc = 0;
    let mut index = 0;
    while index < table.len() {
        let mut value: u32 = crc;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ if value & 1 == 1 { 0xEDB8_8320 } else { 0 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
        crc += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value that is published with the CRC's parameters.
    #[test]
    fn crc32_fits_its_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
