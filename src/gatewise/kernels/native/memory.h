// Memory that outlives a call, so that it need not be made anew: a fresh buffer of 98 MB costs 52 ms of page faults,
// a used one 1 ms.
#pragma once

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <new>
#include <optional>
#include <vector>

#include "recurrence.h"

namespace gatewise {

constexpr std::align_val_t memory_alignment{64};

inline float* allocate(Index floats) {
    return static_cast<float*>(::operator new(static_cast<std::size_t>(floats) * sizeof(float), memory_alignment));
}

inline void deallocate(float* data) { ::operator delete(data, memory_alignment); }

// Scratch memory of one calling thread, as large as its largest call so far.
class Workspace {
  public:
    Workspace() = default;
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    ~Workspace() { release(); }

    float* at_least(Index floats) {
        if (floats > size_) {
            release();
            data_ = allocate(floats);
            size_ = floats;
        }
        return data_;
    }

    void release() {
        if (data_) deallocate(data_);
        data_ = nullptr;
        size_ = 0;
    }

  private:
    float* data_ = nullptr;
    Index size_ = 0;
};

// Memory that waits to be used again; at most `most_bytes`, what waits for longest goes first. A Buffer has data and
// size, in floats.
template <typename Buffer>
class Waiting {
  public:
    explicit Waiting(std::size_t most_bytes) : most_bytes_(most_bytes) {}

    // The last one that suits(buffer), if any; the caller gives it back.
    template <typename Suits>
    std::optional<Buffer> take(const Suits& suits) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (std::size_t i = buffers_.size(); i-- > 0;) {
            const Buffer buffer = buffers_[i];
            if (!suits(buffer)) continue;
            buffers_.erase(buffers_.begin() + static_cast<std::ptrdiff_t>(i));
            bytes_ -= bytes(buffer);
            return buffer;
        }
        return std::nullopt;
    }

    void give_back(Buffer buffer) {
        const std::lock_guard<std::mutex> lock(mutex_);
        buffers_.push_back(buffer);
        bytes_ += bytes(buffer);
        while (bytes_ > most_bytes_) drop_oldest();
    }

    void release() {
        const std::lock_guard<std::mutex> lock(mutex_);
        while (!buffers_.empty()) drop_oldest();
    }

  private:
    static std::size_t bytes(const Buffer& buffer) { return static_cast<std::size_t>(buffer.size) * sizeof(float); }

    void drop_oldest() {
        bytes_ -= bytes(buffers_.front());
        deallocate(buffers_.front().data);
        buffers_.erase(buffers_.begin());
    }

    const std::size_t most_bytes_;
    std::mutex mutex_;
    std::vector<Buffer> buffers_;
    std::size_t bytes_ = 0;
};

// Large buffers that come and go with the steps of a training: what is given back serves the next one of about that
// size.
class BufferPool {
  public:
    struct Buffer {
        float* data;
        Index size;
    };

    Buffer take(Index floats) {
        const auto suits = [&](const Buffer& b) { return b.size >= floats && b.size - floats <= floats / 4; };
        if (const auto waiting = waiting_.take(suits)) return *waiting;
        return {allocate(floats), floats};
    }
    void give_back(Buffer buffer) { waiting_.give_back(buffer); }
    void release() { waiting_.release(); }

  private:
    Waiting<Buffer> waiting_{std::size_t{512} << 20};
};

// The packed weights of inference, for the next call with weights at the same place: the kernels notice if these have
// changed. Each is lent to one call at a time, so that calls at once do not share one.
class KeptWeights {
  public:
    struct Place {
        const void *kernels, *ih, *hh;
        Index I, H;

        bool operator==(const Place& o) const {
            return kernels == o.kernels && ih == o.ih && hh == o.hh && I == o.I && H == o.H;
        }
    };
    struct Buffer {
        float* data;
        Index size;
        Place place;
    };

    Buffer take(const Place& place, Index floats) {
        const auto suits = [&](const Buffer& b) { return b.place == place && b.size == floats; };
        if (const auto waiting = waiting_.take(suits)) return *waiting;
        const Buffer buffer{allocate(floats), floats, place};
        std::fill_n(buffer.data, floats, 0.0f);
        return buffer;
    }
    void give_back(Buffer buffer) { waiting_.give_back(buffer); }
    void release() { waiting_.release(); }

  private:
    Waiting<Buffer> waiting_{std::size_t{128} << 20};
};

}  // namespace gatewise
