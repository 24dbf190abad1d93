// Memory that outlives a call, so that it need not be made anew: a fresh buffer of 98 MB costs 52 ms of page faults,
// a used one 1 ms.
#pragma once

#include <cstddef>
#include <mutex>
#include <new>
#include <vector>

#include "gru.h"

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

// Large buffers that come and go with the steps of a training. What is given back is kept for the next one of about
// that size; at most `most_kept` bytes wait, the oldest go first.
class BufferPool {
  public:
    static constexpr std::size_t most_kept = std::size_t{512} << 20;

    struct Buffer {
        float* data;
        Index size;
    };

    Buffer take(Index floats) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (std::size_t i = waiting_.size(); i-- > 0;) {
            const Buffer buffer = waiting_[i];
            if (buffer.size < floats || buffer.size - floats > floats / 4) continue;
            waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
            kept_ -= bytes(buffer);
            return buffer;
        }
        return {allocate(floats), floats};
    }

    void give_back(Buffer buffer) {
        const std::lock_guard<std::mutex> lock(mutex_);
        waiting_.push_back(buffer);
        kept_ += bytes(buffer);
        while (kept_ > most_kept) drop_oldest();
    }

    void release() {
        const std::lock_guard<std::mutex> lock(mutex_);
        while (!waiting_.empty()) drop_oldest();
    }

  private:
    static std::size_t bytes(Buffer buffer) { return static_cast<std::size_t>(buffer.size) * sizeof(float); }

    void drop_oldest() {
        kept_ -= bytes(waiting_.front());
        deallocate(waiting_.front().data);
        waiting_.erase(waiting_.begin());
    }

    std::mutex mutex_;
    std::vector<Buffer> waiting_;
    std::size_t kept_ = 0;
};

}  // namespace gatewise
