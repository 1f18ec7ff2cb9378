//! What fails around nproxy, by kind. The rule for all of it: status 0 means that every byte went where it should,
//! anything else is told once, and nothing waits for ever.

// Which end failed, and whether it was an end.
mod ends;
// Copies: limits that one meets, variables and names that lead astray.
mod copies;
// Processes, descriptors, system calls: what there is none of, or too little.
mod limits;
// Other users, other processes, and what they leave behind or put into names.
mod neighbours;
// Sockets that keep records apart.
mod records;
// Descriptors of kinds that hardly anybody has as a stdin or stdout.
mod unusual;
// Every system call of a run refused, one at a time.
mod table;
// Much of everything at the same time, for a while.
mod soak;
