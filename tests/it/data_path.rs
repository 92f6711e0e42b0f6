//! The data path's own duties between a caller and the instance, whatever it is built on: how long
//! a connection is kept, what is an interim response, where a message ends, what belongs to one hop
//! only, which client a path leads to, and what a caller may cost that takes nothing or floods.

mod floods;
mod framing;
mod heads;
mod idle;
mod interim;
mod paths;
mod slow_head;
mod stalls;
mod streams;
mod trailers;
