//! The byte streams on which filters are measured, made from a fixed seed so that every run and every
//! machine sees the same ones. A shorter one is the beginning of a longer one. The benches use them in
//! memory, and the peer of the tests (`peer corpus`) writes them for whole programs.

/// A small generator (xorshift64*), good enough to choose words.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn choose<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const WORDS: &[&str] = &[
    "error",
    "warning",
    "in",
    "function",
    "of",
    "the",
    "relay",
    "buffer",
    "completion",
    "ring",
    "a",
    "to",
    "expected",
    "found",
    "unused",
    "variable",
    "splice",
    "pipe",
    "is",
    "never",
    "read",
    "note",
    "help",
    "consider",
    "value",
    "moved",
    "here",
    "after",
    "borrow",
    "struct",
    "at",
    "line",
];
const ACCENTED: &[&str] =
    &["naïve", "größer", "日本語", "файл", "–", "✓", "été", "señal", "λ", "→", "in", "the", "a"];
const CRATES: &[&str] =
    &["serde", "libc", "clap_builder", "io-uring", "memchr", "proc-macro2", "quote", "syn", "nix"];

/// Text made of pieces until it is long enough, then cut to size.
fn corpus(size: usize, mut piece: impl FnMut(&mut Random, &mut String)) -> Vec<u8> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut text = String::new();
    while text.len() < size {
        piece(&mut random, &mut text);
    }
    let mut bytes = text.into_bytes();
    bytes.truncate(size);
    bytes
}

/// A colour before every word and a reset after it: about two thirds of it are escape sequences.
pub(crate) fn dense(size: usize) -> Vec<u8> {
    corpus(size, |random, text| {
        let colour = match random.below(4) {
            0 => format!("\x1b[{}m", 30 + random.below(8)),
            1 => format!("\x1b[1;{}m", 30 + random.below(8)),
            2 => format!("\x1b[38;5;{}m", random.below(256)),
            _ => format!(
                "\x1b[38;2;{};{};{}m",
                random.below(256),
                random.below(256),
                random.below(256)
            ),
        };
        let end = if random.below(10) == 0 { "\n" } else { " " };
        *text += &format!("{colour}{}\x1b[0m{end}", random.choose(WORDS));
    })
}

/// Log lines of about 80 bytes without a single escape sequence.
pub(crate) fn plain(size: usize) -> Vec<u8> {
    corpus(size, |random, text| {
        let start = text.len();
        while text.len() - start < 70 {
            *text += random.choose(WORDS);
            text.push(' ');
        }
        text.push('\n');
    })
}

/// The same in several scripts, where every other byte is part of a longer character.
pub(crate) fn utf8(size: usize) -> Vec<u8> {
    corpus(size, |random, text| {
        *text += random.choose(ACCENTED);
        text.push(if random.below(10) == 0 { '\n' } else { ' ' });
    })
}

/// Lines as `cargo build --color=always` writes them: status lines, and here and there a warning.
pub(crate) fn build_log(size: usize) -> Vec<u8> {
    corpus(size, |random, text| {
        let name = random.choose(CRATES);
        let version = format!("v{}.{}.{}", random.below(3), random.below(90), random.below(20));
        *text += &format!("\x1b[1m\x1b[92m   Compiling\x1b[0m {name} {version}\n");
        if random.below(4) == 0 {
            let (line, column) = (random.below(900), random.below(90));
            let word = random.choose(WORDS);
            *text += &format!(
                "\x1b[0m\x1b[1m\x1b[33mwarning\x1b[0m\x1b[0m\x1b[1m: unused variable: `{word}`\x1b[0m\n\
                 \x1b[0m  \x1b[0m\x1b[0m\x1b[1m\x1b[38;5;12m--> \x1b[0m\x1b[0msrc/{word}.rs:{line}:{column}\x1b[0m\n\
                 \x1b[0m   \x1b[0m\x1b[0m\x1b[1m\x1b[38;5;12m|\x1b[0m\n\
                 \x1b[0m\x1b[1m\x1b[38;5;12m{line:<3}\x1b[0m\x1b[0m \x1b[0m\x1b[0m\x1b[1m\x1b[38;5;12m|\x1b[0m\
                 \x1b[0m \x1b[0m\x1b[0m    let {word} = Some({column});\x1b[0m\n\
                 \x1b[0m   \x1b[0m\x1b[0m\x1b[1m\x1b[38;5;12m|\x1b[0m\x1b[0m         \x1b[0m\x1b[0m\x1b[1m\x1b[33m\
                 ^^^^^^^\x1b[0m\x1b[0m \x1b[0m\x1b[0m\x1b[1m\x1b[33mhelp: if this is intentional, prefix it with \
                 an underscore: `_{word}`\x1b[0m\n\n"
            );
        }
    })
}

/// What cargo writes to a terminal: a line for each crate, and a bar that is drawn twice meanwhile.
pub(crate) fn redrawn(size: usize) -> Vec<u8> {
    let mut done = 0;
    corpus(size, |random, text| {
        done += 1;
        let name = random.choose(CRATES);
        let version = format!("v{}.{}.{}", random.below(3), random.below(90), random.below(20));
        *text += &format!("\x1b[K\x1b[1m\x1b[92m   Compiling\x1b[0m {name} {version}\r\n");
        for _ in 0..2 {
            let (bar, left) = ("=".repeat(done % 20), " ".repeat(20 - done % 20));
            let (first, second) = (random.choose(CRATES), random.choose(CRATES));
            *text += &format!(
                "\x1b[1m\x1b[96m    Building\x1b[0m [{bar}>{left}] {done}/400: {first}, {second}(build)\x1b[K\r"
            );
        }
    })
}

/// Lines of exactly 80 bytes, the newline included.
pub(crate) fn lines(size: usize) -> Vec<u8> {
    corpus(size, |random, text| {
        let start = text.len();
        while text.len() - start < 79 {
            *text += random.choose(WORDS);
            text.push(' ');
        }
        text.truncate(start + 79);
        text.push('\n');
    })
}
