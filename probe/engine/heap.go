package engine

import "github.com/probed/probed/probe"

// A heap orders values by a moment, earliest first.
type heap[T any] []timed[T]

type timed[T any] struct {
	at    probe.Instant
	value T
}

// push adds a value.
func (h *heap[T]) push(at probe.Instant, v T) {
	*h = append(*h, timed[T]{at, v})
	q := *h
	i := len(q) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if q[parent].at <= q[i].at {
			break
		}
		q[parent], q[i] = q[i], q[parent]
		i = parent
	}
}

// due reports whether the earliest value's moment has come.
func (h heap[T]) due(now probe.Instant) bool { return len(h) > 0 && h[0].at <= now }

// pop removes the earliest value.
func (h *heap[T]) pop() timed[T] {
	q := *h
	top := q[0]
	last := len(q) - 1
	q[0] = q[last]
	q[last] = timed[T]{}
	q = q[:last]
	q.down(0)
	*h = q
	return top
}

// down moves the value at i to where it belongs, if that is further down.
func (h heap[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if h[i].at <= h[child].at {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// filter keeps the values that keep says.
func (h *heap[T]) filter(keep func(T) bool) {
	q := (*h)[:0]
	for _, v := range *h {
		if keep(v.value) {
			q = append(q, v)
		}
	}
	clear((*h)[len(q):])
	*h = q
	for i := len(q)/2 - 1; i >= 0; i-- {
		q.down(i)
	}
}
