//! Pauses of long work, so that it does not delay other work.

/// A callback that long work makes between its pieces. The callback may wait.
#[derive(Default)]
pub struct Pause<'a>(Option<&'a mut (dyn FnMut() + Send)>);

impl<'a> Pause<'a> {
    /// Pauses by a callback.
    pub fn by(callback: &'a mut (dyn FnMut() + Send)) -> Self {
        Self(Some(callback))
    }

    /// Makes the callback.
    pub fn rest(&mut self) {
        if let Some(callback) = &mut self.0 {
            callback();
        }
    }
}

impl std::fmt::Debug for Pause<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pause").field(&self.0.is_some()).finish()
    }
}
