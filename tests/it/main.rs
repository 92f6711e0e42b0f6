//! The integration tests, one binary: each module holds one promise of the program or of its
//! source.

// said once more for clippy, which allows `unwrap` in what is marked as tests
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod token_faults;
