//! The processor's memory: matrices are shared buffers from a pool, parameters are plain vectors.

use std::sync::Arc;

use dfdx::prelude::{Cpu, CpuError};
use spdflow_kernels::Store;

use super::backend::{Array, Buffers, Gradient, GradientBuffer};
use super::graph::DeviceResult;
use super::pool::Pooled;

impl Gradient<Cpu> {
    /// Returns the memory and what to do with what it holds; all of it must be written if it says so.
    pub(super) fn parts(&mut self) -> (&mut [f32], Store) {
        let store = if self.memory.is_none() { Store::Write } else { Store::Add };
        let length = self.length;
        (self.memory.get_or_insert_with(|| Pooled::filled_by(length, |_| ()).into_vec()), store)
    }

    /// Returns the memory to add to.
    pub(super) fn sum(&mut self) -> &mut [f32] {
        let length = self.length;
        self.memory.get_or_insert_with(|| Pooled::zeros(length).into_vec())
    }
}

impl Buffers for Cpu {
    type Err = CpuError;
    type Gradient = Vec<f32>;
    type View = Arc<Pooled>;
    type Buffer = Vec<f32>;

    const COMPUTES_IN_PARTS: bool = true;

    fn upload(&self, data: Vec<f32>, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        assert_eq!(data.len(), shape.0 * shape.1, "data of a matrix {shape:?}");
        Ok(Array { data: Arc::new(Pooled::from(data)), shape })
    }

    fn download(view: &Self::View) -> Vec<f32> {
        view.to_vec()
    }

    fn buffer(&self, data: Vec<f32>) -> DeviceResult<Self::Buffer, Self> {
        Ok(data)
    }

    fn read_buffer(&self, buffer: &Self::Buffer) -> Vec<f32> {
        buffer.clone()
    }

    fn array_of_buffer(&self, buffer: &Self::Buffer, shape: (usize, usize)) -> DeviceResult<Array<Self>, Self> {
        assert_eq!(buffer.len(), shape.0 * shape.1, "data of a matrix {shape:?}");
        Ok(Array { data: Arc::new(Pooled::filled_by(buffer.len(), |data| data.copy_from_slice(buffer))), shape })
    }

    fn read_gradient(gradient: &GradientBuffer<Self>) -> Vec<f32> {
        gradient.to_vec()
    }

    fn length(gradient: &Vec<f32>) -> usize {
        gradient.len()
    }

    fn zeros(&self, length: usize) -> DeviceResult<Vec<f32>, Self> {
        Ok(Pooled::zeros(length).into_vec())
    }

    fn gradient(&self, data: Vec<f32>) -> DeviceResult<Vec<f32>, Self> {
        Ok(data)
    }

    fn recycle_gradient(gradient: Vec<f32>) {
        drop(Pooled::from(gradient));
    }
}

/// Returns the matrix that `fill` writes; it must write every element.
pub(super) fn written(shape: (usize, usize), fill: impl FnOnce(&mut [f32])) -> DeviceResult<Array<Cpu>, Cpu> {
    Ok(Array { data: Arc::new(Pooled::filled_by(shape.0 * shape.1, fill)), shape })
}
