// The module gatewise.kernels._native: the kernels, called with addresses and sizes that Python has checked.
//
// Addresses come as integers: 0.2 us a call, where arrays through DLPack take 5 to 12.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <type_traits>

#include "gru.h"
#include "memory.h"

namespace nb = nanobind;

namespace gatewise {

void bind_stream(nb::module_& m);  // stream_bindings.cpp

namespace {

using Address = std::uintptr_t;

const Kernels* kernels = best_kernels();

thread_local Workspace workspace;

// Never destroyed: tensors can outlive everything else at the end of the process.
BufferPool& buffers = *new BufferPool;

KeptWeights& kept_weights = *new KeptWeights;

// A tensor (floats,) of unset numbers, whose memory goes back to the pool when the tensor is gone.
nb::ndarray<nb::pytorch, float, nb::ndim<1>> buffer(Index floats) {
    auto* lent = new BufferPool::Buffer(buffers.take(floats));
    nb::capsule owner(lent, [](void* pointer) noexcept {
        auto* returned = static_cast<BufferPool::Buffer*>(pointer);
        buffers.give_back(*returned);
        delete returned;
    });
    return {lent->data, {static_cast<std::size_t>(floats)}, owner};
}

template <typename Number>
Number* pointer(Address address) {
    return reinterpret_cast<Number*>(address);
}

template <typename Number>
Sequence<Number> sequence(Address address, Index step, Index row) {
    return {pointer<Number>(address), step, row};
}

template <typename Number>
const KernelsOf<Number>& kernels_of() {
    if constexpr (std::is_same_v<Number, float>) return *kernels;
    else return *kernels->bfloat16;
}

GruShape shape(Index T, Index B, Index I, Index H, bool before) {
    return {T, B, I, H, before ? Reset::before : Reset::after};
}

template <typename Number>
void gru_forward(Index T, Index B, Index I, Index H, bool before, Address weight_ih, Address weight_hh, Address bias_ih,
                 Address bias_hh, Address x, Index x_step, Index x_row, Address h0, Index h0_row, Address y,
                 Index y_step, Index y_row, Address hn, Address saved, int threads) {
    const KernelsOf<Number>& serving = kernels_of<Number>();
    GruForwardOf<Number> call{
        shape(T, B, I, H, before),
        {pointer<Number>(weight_ih), pointer<Number>(weight_hh), pointer<Number>(bias_ih), pointer<Number>(bias_hh)},
        sequence<const Number>(x, x_step, x_row),
        sequence<const Number>(h0, 0, h0_row),
        sequence<Number>(y, y_step, y_row),
        pointer<Number>(hn),
        pointer<float>(saved),
    };
    // In training the weights change with each step.
    const Index keeps = saved ? 0 : serving.kept_size(call.shape);
    float* scratch = workspace.at_least(serving.forward_workspace_size(call.shape, saved != 0, keeps > 0, threads));
    if (keeps == 0) return serving.forward(call, scratch, threads);
    const KeptWeights::Buffer kept =
        kept_weights.take({&serving, call.weights.ih, call.weights.hh, I, H, call.shape.reset}, keeps);
    call.kept = kept.data;
    serving.forward(call, scratch, threads);
    kept_weights.give_back(kept);
}

template <typename Number>
void gru_backward(Index T, Index B, Index I, Index H, bool before, Address weight_ih, Address weight_hh, Address x,
                  Index x_step, Index x_row, Address h0, Index h0_row, Address y, Index y_step, Index y_row,
                  Address saved, Address dy, Index dy_step, Index dy_row, Address dhn, Index dhn_row, Address dx,
                  Index dx_step, Index dx_row, Address dh0, Address dweight_ih, Address dweight_hh, Address dbias_ih,
                  Address dbias_hh, int threads) {
    const KernelsOf<Number>& serving = kernels_of<Number>();
    const GruBackwardOf<Number> call{
        shape(T, B, I, H, before),
        {pointer<Number>(weight_ih), pointer<Number>(weight_hh), nullptr, nullptr},
        sequence<const Number>(x, x_step, x_row),
        sequence<const Number>(h0, 0, h0_row),
        sequence<const Number>(y, y_step, y_row),
        pointer<float>(saved),
        sequence<const Number>(dy, dy_step, dy_row),
        sequence<const Number>(dhn, 0, dhn_row),
        sequence<Number>(dx, dx_step, dx_row),
        pointer<Number>(dh0),
        pointer<Number>(dweight_ih),
        pointer<Number>(dweight_hh),
        pointer<Number>(dbias_ih),
        pointer<Number>(dbias_hh),
    };
    serving.backward(call, workspace.at_least(serving.backward_workspace_size(call.shape, threads)), threads);
}

}  // namespace
}  // namespace gatewise

NB_MODULE(_native, m) {
    using namespace gatewise;
    m.def("instruction_set", [] { return std::string(kernels->name); });
    m.def("float32_instruction_set", [] { return std::string(kernels->float32_name); });
    m.def("computes_bfloat16", [] { return kernels->bfloat16 != nullptr; });
    m.def("use_instruction_set", [](const std::string& name) {
        const Kernels* chosen = kernels_for(name.c_str());
        if (chosen) kernels = chosen;
        return chosen != nullptr;
    });
    m.def("saved_size", [](Index T, Index B, Index I, Index H, bool before) {
        return kernels->saved_size(shape(T, B, I, H, before));
    });
    m.def("buffer", &buffer);
    m.def("release_memory", [] {
        workspace.release();
        buffers.release();
        kept_weights.release();
    });
    m.def("gru_forward", &gru_forward<float>, nb::call_guard<nb::gil_scoped_release>());
    m.def("gru_backward", &gru_backward<float>, nb::call_guard<nb::gil_scoped_release>());
    // Only where computes_bfloat16() holds.
    m.def("gru_forward_bfloat16", &gru_forward<Bfloat16>, nb::call_guard<nb::gil_scoped_release>());
    m.def("gru_backward_bfloat16", &gru_backward<Bfloat16>, nb::call_guard<nb::gil_scoped_release>());
    bind_stream(m);
#ifdef _OPENMP
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
}
