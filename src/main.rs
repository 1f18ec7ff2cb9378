//! Parse, run, exit: nothing else.

fn main() -> ! {
    nproxy::leave(nproxy::run())
}
