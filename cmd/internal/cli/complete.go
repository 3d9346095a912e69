package cli

import (
	"fmt"
	"io"
	"strings"

	ucli "github.com/urfave/cli/v2"
)

// bashScript and zshScript ask the program itself; PROGRAM and FUNCTION are
// put in for the name.
const bashScript = `# bash: source <(PROGRAM completion bash)
FUNCTION() {
  local cur="${COMP_WORDS[COMP_CWORD]}"
  local line=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ "$cur" == -* ]] && line+=("$cur")
  local IFS=$'\n'
  COMPREPLY=($(compgen -W "$("${line[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F FUNCTION PROGRAM
`

const zshScript = `#compdef PROGRAM
# zsh: source <(PROGRAM completion zsh)
FUNCTION() {
  local -a line words_found
  line=("${(@)words[1,CURRENT-1]}")
  [[ "${words[CURRENT]}" == -* ]] && line+=("${words[CURRENT]}")
  words_found=("${(@f)$("${line[@]}" --generate-bash-completion 2>/dev/null)}")
  if [[ -n "${words_found[1]}" ]]; then compadd -a words_found; else _files; fi
}
compdef FUNCTION PROGRAM
`

// CompletionCommand returns the command that prints a completion script.
func CompletionCommand() *ucli.Command {
	return &ucli.Command{
		Name: "completion", Usage: "print the completion script of a shell", ArgsUsage: "bash|zsh|fish",
		Action: func(c *ucli.Context) error {
			if err := WantArgs(c, 1, 1); err != nil {
				return err
			}
			script, err := completionScript(c.App, c.Args().First())
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.App.Writer, script)
			return err
		},
	}
}

func completionScript(app *ucli.App, shell string) (string, error) {
	names := strings.NewReplacer("PROGRAM", app.Name, "FUNCTION", "_"+strings.ReplaceAll(app.Name, "-", "_")+"_complete")
	switch shell {
	case "bash":
		return names.Replace(bashScript), nil
	case "zsh":
		return names.Replace(zshScript), nil
	case "fish":
		return app.ToFishCompletion()
	}
	return "", usage(fmt.Sprintf("no completion for %s", quote(shell)), "there is one for bash, zsh and fish")
}
