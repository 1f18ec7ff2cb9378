//! The control characters that begin and end escape sequences (ECMA-48, 5th edition).

/// What the bytes 0x80..=0x9F are where UTF-8 does not account for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum C1 {
    /// Text of another encoding, as a terminal in UTF-8 takes it.
    #[default]
    Text,
    /// The controls of ECMA-48 in one byte, as an 8-bit terminal takes them.
    Control,
}

pub(super) const ESC: u8 = 0x1B;
pub(super) const BEL: u8 = 0x07;
pub(super) const CAN: u8 = 0x18;
pub(super) const SUB: u8 = 0x1A;
pub(super) const CSI: u8 = 0x9B;
