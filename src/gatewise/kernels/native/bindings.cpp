// The module gatewise.kernels._native: the kernels, called with addresses and sizes that Python has checked.
//
// Addresses come as integers: 0.2 us a call, where arrays through DLPack take 5 to 12.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <new>

#include "gru.h"

namespace nb = nanobind;

namespace gatewise {
namespace {

using Address = std::uintptr_t;

const Kernels* kernels = best_kernels();

// Scratch memory of one calling thread, kept from call to call: a fresh buffer of 98 MB costs 52 ms of page faults.
class Workspace {
  public:
    ~Workspace() { release(); }

    float* at_least(Index floats) {
        if (floats > size_) {
            release();
            data_ = static_cast<float*>(::operator new(floats * sizeof(float), alignment));
            size_ = floats;
        }
        return data_;
    }

    void release() {
        if (data_) ::operator delete(data_, alignment);
        data_ = nullptr;
        size_ = 0;
    }

  private:
    static constexpr std::align_val_t alignment{64};
    float* data_ = nullptr;
    Index size_ = 0;
};

thread_local Workspace workspace;

template <typename Float>
Float* pointer(Address address) {
    return reinterpret_cast<Float*>(address);
}

template <typename Float>
Sequence<Float> sequence(Address address, Index step, Index row) {
    return {pointer<Float>(address), step, row};
}

GruShape shape(Index T, Index B, Index I, Index H, bool before) {
    return {T, B, I, H, before ? Reset::before : Reset::after};
}

void gru_forward(Index T, Index B, Index I, Index H, bool before, Address weight_ih, Address weight_hh, Address bias_ih,
                 Address bias_hh, Address x, Index x_step, Index x_row, Address h0, Index h0_row, Address y,
                 Index y_step, Index y_row, Address hn, Address saved, int threads) {
    const GruForward call{
        shape(T, B, I, H, before),
        {pointer<float>(weight_ih), pointer<float>(weight_hh), pointer<float>(bias_ih), pointer<float>(bias_hh)},
        sequence<const float>(x, x_step, x_row),
        sequence<const float>(h0, 0, h0_row),
        sequence<float>(y, y_step, y_row),
        pointer<float>(hn),
        pointer<float>(saved),
    };
    kernels->forward(call, workspace.at_least(kernels->forward_workspace_size(call.shape, saved != 0, threads)), threads);
}

void gru_backward(Index T, Index B, Index I, Index H, bool before, Address weight_ih, Address weight_hh, Address x,
                  Index x_step, Index x_row, Address h0, Index h0_row, Address y, Index y_step, Index y_row,
                  Address saved, Address dy, Index dy_step, Index dy_row, Address dhn, Index dhn_row, Address dx,
                  Index dx_step, Index dx_row, Address dh0, Address dweight_ih, Address dweight_hh, Address dbias_ih,
                  Address dbias_hh, int threads) {
    const GruBackward call{
        shape(T, B, I, H, before),
        {pointer<float>(weight_ih), pointer<float>(weight_hh), nullptr, nullptr},
        sequence<const float>(x, x_step, x_row),
        sequence<const float>(h0, 0, h0_row),
        sequence<const float>(y, y_step, y_row),
        pointer<float>(saved),
        sequence<const float>(dy, dy_step, dy_row),
        sequence<const float>(dhn, 0, dhn_row),
        sequence<float>(dx, dx_step, dx_row),
        pointer<float>(dh0),
        pointer<float>(dweight_ih),
        pointer<float>(dweight_hh),
        pointer<float>(dbias_ih),
        pointer<float>(dbias_hh),
    };
    kernels->backward(call, workspace.at_least(kernels->backward_workspace_size(call.shape, threads)), threads);
}

}  // namespace
}  // namespace gatewise

NB_MODULE(_native, m) {
    using namespace gatewise;
    m.def("instruction_set", [] { return std::string(kernels->name); });
    m.def("use_instruction_set", [](const std::string& name) {
        const Kernels* chosen = kernels_for(name.c_str());
        if (chosen) kernels = chosen;
        return chosen != nullptr;
    });
    m.def("saved_size", [](Index T, Index B, Index I, Index H, bool before) {
        return kernels->saved_size(shape(T, B, I, H, before));
    });
    m.def("release_workspace", [] { workspace.release(); });
    m.def("gru_forward", &gru_forward, nb::call_guard<nb::gil_scoped_release>());
    m.def("gru_backward", &gru_backward, nb::call_guard<nb::gil_scoped_release>());
#ifdef _OPENMP
    m.attr("openmp") = true;
#else
    m.attr("openmp") = false;
#endif
}
