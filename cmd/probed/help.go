package main

// usage is the template of --help. For a command it says what the command takes;
// without one it says so for every command, because the default one has flags too,
// which kingpin's own short template leaves out. Its long one lists every command
// whichever was asked about.
const usage = `
{{- define "parameters" -}}
{{if .FlagSummary}} {{.FlagSummary}}{{end -}}
{{range .Args}} {{if not .Required}}[{{end}}<{{.Name}}>{{if .Value|IsCumulative}}...{{end}}{{if not .Required}}]{{end}}{{end -}}
{{end -}}

{{define "commands" -}}
{{range .FlattenedCommands}}{{if not .Hidden}}
{{.FullCommand}}{{template "parameters" .}}
{{.Help|Wrap 4 -}}
{{with .Flags|FlagsToTwoColumns}}
{{FormatTwoColumnsWithIndent . 4 2}}{{end -}}
{{end}}{{end -}}
{{end -}}

usage: {{.App.Name}}
{{- with .Context.SelectedCommand}} {{.}}{{template "parameters" .}}

{{.Help|Wrap 0 -}}
{{else}}{{template "parameters" .App}} [<command>]

{{.App.Help|Wrap 0 -}}
{{end -}}
{{with .Context.Flags}}
Flags:
{{.|FlagsToTwoColumns|FormatTwoColumns -}}
{{end -}}
{{if .Context.SelectedCommand}}{{with .Context.Args}}
Args:
{{.|ArgsToTwoColumns|FormatTwoColumns -}}
{{end}}{{else}}
Commands:
{{template "commands" .App -}}
{{end -}}
`
