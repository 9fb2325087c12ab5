package show

import (
	"cmp"
	"slices"
	"strings"
)

// maxLanes is how many brackets stand side by side.
const maxLanes = 3

// A bracket is a mark with the lane that it stands in.
type bracket struct {
	mark     *Mark
	from, to int // rows
	lane     int
}

// closing counts the brackets that end at step i.
func (l *ladder) closing(i int) int {
	n := 0
	for _, m := range l.c.Marks {
		if m.To == i && m.From >= 0 {
			n++
		}
	}
	return n
}

// brackets draws what was measured beside the rows: short intervals inside, long
// ones outside. One for which there is no lane, or which has no length, has its
// name alone.
func (l *ladder) brackets() {
	if !l.measure {
		return
	}
	list := l.lanes()
	grid := make([][maxLanes]string, len(l.rows))
	names := make([]string, len(l.rows))
	// Those without a lane come last: their names go below the others'.
	slices.SortStableFunc(list, func(a, b bracket) int { return cmp.Compare(min(b.lane, 0), min(a.lane, 0)) })
	for _, b := range list {
		at := b.to
		for names[at] != "" {
			at++ // body left a line for it
		}
		names[at] = b.mark.Name + " " + FormatDuration(b.mark.Duration)
		if b.lane < 0 {
			continue
		}
		grid[b.from][b.lane] = "╮"
		for r := b.from + 1; r < at; r++ {
			grid[r][b.lane] = "│"
		}
		grid[at][b.lane] = "╯"
	}
	for i := range l.rows {
		l.rows[i].measure = measured(grid[i], names[i])
	}
}

// measured is the end of a row: what stands in each lane, then a name.
func measured(lanes [maxLanes]string, name string) string {
	text := ""
	for _, lane := range lanes {
		if lane == "" {
			lane = " "
		}
		text += lane + " "
	}
	return Fit(strings.TrimRight(text+name, " "), measureColumns-2)
}

// lanes gives each mark its place, the shortest first.
func (l *ladder) lanes() []bracket {
	var list []bracket
	for i := range l.c.Marks {
		if m := &l.c.Marks[i]; m.From >= 0 && m.To >= 0 {
			list = append(list, bracket{mark: m, from: l.rowOf[m.From], to: l.rowOf[m.To]})
		}
	}
	slices.SortStableFunc(list, func(a, b bracket) int { return cmp.Compare(a.to-a.from, b.to-b.from) })
	for i := range list {
		list[i].lane = -1
		if list[i].from == list[i].to {
			continue // one segment was both
		}
		for lane := range maxLanes {
			free := !slices.ContainsFunc(list[:i], func(o bracket) bool {
				return o.lane == lane && o.from <= list[i].to+1 && list[i].from <= o.to+1
			})
			if free {
				list[i].lane = lane
				break
			}
		}
	}
	return list
}
