package recorder

// A ring holds the last of many values. It grows with what it holds.
type ring[T any] struct {
	items  []T
	oldest int // once it is full
}

// next makes room for one more value, the oldest one's if there are most already,
// and returns its place with whatever was there.
func (r *ring[T]) next(most int) *T {
	if len(r.items) < most {
		var zero T
		r.items = append(r.items, zero)
		return &r.items[len(r.items)-1]
	}
	at := &r.items[r.oldest]
	r.oldest = (r.oldest + 1) % len(r.items)
	return at
}

func (r *ring[T]) push(most int, v T) { *r.next(most) = v }

func (r *ring[T]) len() int { return len(r.items) }

// at returns the i-th oldest value.
func (r *ring[T]) at(i int) *T { return &r.items[(r.oldest+i)%len(r.items)] }

// appendTo appends the values, the oldest first.
func (r *ring[T]) appendTo(to []T) []T {
	return append(append(to, r.items[r.oldest:]...), r.items[:r.oldest]...)
}
