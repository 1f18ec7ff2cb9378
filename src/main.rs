//! Parse, run, exit: nothing else.

fn main() -> ! {
    nproxy::session::leave(nproxy::run())
}
