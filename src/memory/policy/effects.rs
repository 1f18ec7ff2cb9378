//! What a stage may change: only what is extra.

/// How much of what passes is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Every chunk's size and time.
    Full,
    /// Counts and distributions only.
    Summary,
    /// Counts that cost nothing.
    Off,
}

/// Whether text modes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextModes {
    /// As the user asked.
    AsAsked,
    /// Bytes pass untouched.
    Off,
}

/// How a relay of the child's output may submit its next read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As it likes.
    Open,
    /// In transfers of at most [`super::BOUNDED`] bytes.
    Bounded,
    /// At most so many bytes a second: the gate was closed, and what the child is behind comes no faster than before.
    Limited(u64),
    /// The gate is closed: [`super::TRICKLE`] bytes every [`super::TRICKLE_EVERY`].
    Trickle,
    /// As it likes, and without waiting for more bytes to come together.
    Drain,
}

/// What the stage means for everything else: one row of the design's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effects {
    /// What is recorded.
    pub observation: Observation,
    /// How many records the history keeps.
    pub history: usize,
    /// What text modes do.
    pub text: TextModes,
    /// What relays may do.
    pub flow: Flow,
}
