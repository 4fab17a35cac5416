{{- define "minicolab.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Names of objects begin with it: short enough for the longest suffix. */ -}}
{{- define "minicolab.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "minicolab.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "minicolab.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "minicolab.selector" -}}
app.kubernetes.io/name: {{ include "minicolab.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "minicolab.labels" -}}
{{ include "minicolab.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: minicolab
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "minicolab.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "minicolab.hubImage" -}}
{{- include "minicolab.image" (dict "root" . "image" .Values.images.hub) -}}
{{- end -}}

{{- /* What config says, with minicolab's own defaults. */ -}}
{{- define "minicolab.runtimesNamespace" -}}
{{- dig "runtimes" "kubernetes" "namespace" "minicolab-runtimes" .Values.config -}}
{{- end -}}
{{- define "minicolab.installation" -}}
{{- dig "runtimes" "kubernetes" "installation" "minicolab" .Values.config -}}
{{- end -}}
{{- define "minicolab.hasPlugin" -}}
{{- if and .Values.drive.plugin.enabled (eq (dig "runtimes" "kubernetes" "drives" "csi" .Values.config) "csi") -}}true{{- end -}}
{{- end -}}
{{- define "minicolab.runtimeAccount" -}}
{{- dig "runtimes" "kubernetes" "service_account" "runtime" .Values.config -}}
{{- end -}}
{{- define "minicolab.appHost" -}}
{{- dig "service" "app_host" "localhost" .Values.config -}}
{{- end -}}
{{- define "minicolab.publicPort" -}}
{{- dig "service" "port" 8000 .Values.config | int -}}
{{- end -}}
{{- define "minicolab.appOrigin" -}}
{{- $https := dig "service" "https" false .Values.config -}}
{{- $port := dig "service" "public_port" nil .Values.config | default (include "minicolab.publicPort" .) | int -}}
{{- ternary "https" "http" $https }}://{{ include "minicolab.appHost" . }}{{ if ne $port (ternary 443 80 $https) }}:{{ $port }}{{ end -}}
{{- end -}}
{{- /* The host pattern of runtimes, as an ingress wants it: one star, the leftmost label. */ -}}
{{- define "minicolab.wildcardHost" -}}
{{- $pattern := dig "service" "runtime_host" "{user}.localhost" .Values.config -}}
{{- if not (hasPrefix "{user}." $pattern) -}}
{{- fail (printf "config.service.runtime_host is %q: behind an ingress or a gateway it must be \"{user}.\" and a domain, so that one wildcard covers every user." $pattern) -}}
{{- end -}}
{{- printf "*.%s" (trimPrefix "{user}." $pattern) -}}
{{- end -}}
{{- /* Host names by which the service is opened from outside: the app, the runtimes, and clients of the API. */ -}}
{{- define "minicolab.hosts" -}}
{{- $app := include "minicolab.appHost" . -}}
{{- $api := dig "service" "api_host" "127.0.0.1" .Values.config -}}
{{- $hosts := list $app (include "minicolab.wildcardHost" .) -}}
{{- if and (ne $api $app) (regexMatch "[a-z]" $api) -}}
{{- $hosts = append $hosts $api -}}
{{- end -}}
{{- toJson $hosts -}}
{{- end -}}

{{- /* "true" when a process needs nothing of a shared SQLite file. */ -}}
{{- define "minicolab.hasPostgresql" -}}
{{- if and (dig "control" "database" "" .Values.config) (dig "documents" "database" "" .Values.config) -}}true{{- end -}}
{{- end -}}
{{- define "minicolab.anyPostgresql" -}}
{{- if or (dig "hub" "database" "" .Values.config) (dig "control" "database" "" .Values.config) (dig "documents" "database" "" .Values.config) -}}true{{- end -}}
{{- end -}}

{{- define "minicolab.controlReplicas" -}}
{{- $ha := include "minicolab.hasPostgresql" . -}}
{{- $wanted := .Values.control.replicas -}}
{{- if kindIs "invalid" $wanted -}}
{{- ternary 2 1 (eq $ha "true") -}}
{{- else if and (gt (int $wanted) 1) (ne $ha "true") -}}
{{- fail "control.replicas is above 1, and config.control.database or config.documents.database names no PostgreSQL: several control pods can not share SQLite files." -}}
{{- else -}}
{{- int $wanted -}}
{{- end -}}
{{- end -}}

{{- define "minicolab.secretName" -}}
{{- .Values.secrets.existingSecret | default (printf "%s-secrets" (include "minicolab.fullname" .)) -}}
{{- end -}}
{{- define "minicolab.driveClaim" -}}
{{- .Values.drive.persistence.existingClaim | default (printf "%s-drive" (include "minicolab.fullname" .)) -}}
{{- end -}}
{{- define "minicolab.documentsClaim" -}}
{{- .Values.documents.persistence.existingClaim | default (printf "%s-documents" (include "minicolab.fullname" .)) -}}
{{- end -}}
{{- define "minicolab.hubClaim" -}}
{{- .Values.hub.persistence.existingClaim | default (printf "%s-hub" (include "minicolab.fullname" .)) -}}
{{- end -}}

{{- define "minicolab.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- define "minicolab.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "minicolab.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Where a pod runs; `of` holds nodeSelector, tolerations and perhaps affinity. */ -}}
{{- define "minicolab.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The command of a process: settings, secrets, and where the others are. */ -}}
{{- define "minicolab.serve" -}}
{{- $name := include "minicolab.fullname" .root -}}
{{- $domain := printf "%s.svc" .root.Release.Namespace -}}
- serve
- {{ .process }}
- --config=/etc/minicolab/settings/minicolab.yaml
- --state=/var/lib/minicolab
- --secrets=/etc/minicolab/secrets
- {{ printf "--bind=%s" .root.Values.bind | quote }}
- --at=proxy_api={{ $name }}-proxy-api.{{ $domain }}:8001
- --at=hub={{ $name }}-hub.{{ $domain }}:8081
- --at=documents={{ $name }}-documents.{{ $domain }}:8082
- --at=control={{ $name }}-control.{{ $domain }}:8083
{{- end -}}

{{- /* The secrets of one process and of no other. */ -}}
{{- define "minicolab.secretVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "minicolab.secretName" .root }}
          items:
            {{- range .keys }}
            - {key: {{ . }}, path: {{ . }}}
            {{- end }}
      {{- if and .database (include "minicolab.anyPostgresql" .root) .root.Values.databases.existingSecret }}
      - secret:
          name: {{ .root.Values.databases.existingSecret }}
          items:
            - {key: {{ .root.Values.databases.key }}, path: pgpass}
      {{- end }}
      {{- if and .signIn .root.Values.signIn.existingSecret }}
      - secret:
          name: {{ .root.Values.signIn.existingSecret }}
          items:
            - {key: {{ .root.Values.signIn.key }}, path: oidc-client-secret}
      {{- end }}
{{- if and .database .root.Values.databases.authoritySecret }}
- name: database-authority
  secret:
    secretName: {{ .root.Values.databases.authoritySecret }}
    defaultMode: 0444
{{- end }}
- name: settings
  configMap:
    name: {{ include "minicolab.fullname" .root }}-settings
- name: run
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
- name: tmp
  emptyDir: {}
{{- end -}}

{{- define "minicolab.mounts" -}}
- {name: settings, mountPath: /etc/minicolab/settings, readOnly: true}
- {name: secrets, mountPath: /etc/minicolab/secrets, readOnly: true}
- {name: run, mountPath: /var/lib/minicolab/run}
- {name: tmp, mountPath: /tmp}
{{- if and .database .root.Values.databases.authoritySecret }}
- {name: database-authority, mountPath: /etc/minicolab/databases, readOnly: true}
{{- end }}
{{- end -}}

{{- define "minicolab.environment" -}}
- {name: HOME, value: /tmp}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "minicolab.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "minicolab.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "minicolab.labels" . | nindent 4 }}
  annotations:
    # What people have made outlives `helm uninstall`.
    helm.sh/resource-policy: keep
spec:
  accessModes: [{{ .of.accessMode }}]
  {{- if not (kindIs "invalid" .of.storageClass) }}
  storageClassName: {{ .of.storageClass | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ .of.size }}
{{- end -}}

{{- /* A component as a NetworkPolicy's peer, in JSON. */ -}}
{{- define "minicolab.peer" -}}
{{- toJson (dict "podSelector" (dict "matchLabels" (include "minicolab.selector" . | fromYaml))) -}}
{{- end -}}
