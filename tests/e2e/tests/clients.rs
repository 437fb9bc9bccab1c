//! Real clients inside a sandbox, as they are: their programs, their defaults, no option that
//! says there is a Guard. Each runs with the same commands where its host may be reached and
//! nobody looks inside, where requests are read (so it has to believe the run's authority), and
//! where its host or its request is refused, which has to end it soon and with words that tell
//! a person why.

mod bench;
mod databases;
mod http;
mod packages;
mod repositories;
mod shells;
mod system;
